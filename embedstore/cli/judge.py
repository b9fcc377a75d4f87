"""Verbs that classify and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedstore as es
from embedstore.cli import judged, output
from embedstore.cli import options as o
from embedstore.cli.app import app

if TYPE_CHECKING:
    from embedstore.api.judging import HowOptions

Head = Annotated[str, typer.Option(help="logistic, knn, prototype, lda, svm, ridge, mlp.")]
Folds = Annotated[int, typer.Option(help="Cross-validate over all items instead of the split.")]
Seed = Annotated[int, typer.Option(help="Of the hashed split, the folds and the heads.")]
Near = Annotated[
    float | None,
    typer.Option(help="Cosine from which items across the split are near-duplicates (0.95); 0 does not look."),
]
DropLeaks = Annotated[bool, typer.Option("--drop-leaks", help="Leave near-duplicates of held-out items untrained.")]
Calibrate = Annotated[str | None, typer.Option(help="Calibrate the probabilities: temperature or isotonic.")]
Abstain = Annotated[float | None, typer.Option(help='Say "none of these" below a threshold for this precision.')]
Separator = Annotated[str | None, typer.Option(help="Cut the label's text here: several labels an item.")]
Save = Annotated[str | None, typer.Option(help="Keep the fitted head under this name, for `predict`.")]
HeadArg = Annotated[list[str], typer.Option("--head-arg", metavar="K=V", help="Option of the head, e.g. k=20.")]
Html = Annotated[Path | None, typer.Option(help="Write the report as one self-contained HTML page.")]
Png = Annotated[Path | None, typer.Option(help="Write the confusion matrix (or the curve) as PNG; needs [viz].")]
Templates = Annotated[
    str, typer.Option(help="Sentences around a name: photo, name, simple, imagenet, or a file with one {} a line.")
]
Classes = Annotated[
    str | None, typer.Option(help="Class names with commas between, or a file with one a line; by default the labels.")
]
Prompts = Annotated[Path | None, typer.Option(help="JSON: {class: prompt or [prompts]}.")]
ClassVectors = Annotated[Path | None, typer.Option(help=".npy (K, D): the classes' text vectors, made elsewhere.")]


@app.command()
def probe(
    store: o.StorePath,
    label: o.Label = "label",
    head: Head = "logistic",
    where: o.Where = None,
    space: o.SpaceName = None,
    folds: Folds = 0,
    seed: Seed = 0,
    near: Near = None,
    drop_leaks: DropLeaks = False,
    calibrate: Calibrate = None,
    abstain: Abstain = None,
    separator: Separator = None,
    save: Save = None,
    head_arg: HeadArg = [],
    curve: Annotated[bool, typer.Option("--curve", help="Add the learning curve over labels a class.")] = False,
    html: Html = None,
    png: Png = None,
    as_json: o.Json = False,
) -> None:
    """A classifier on frozen features, judged on held-out items; by default logistic regression, C by cross-validation.

    `embedstore probe pets.store label --head lda --folds 5 --html report.html`
    """
    opened = es.open(store)
    how = _how(folds, seed, near, drop_leaks, calibrate, abstain)
    options = o.pairs(head_arg, "--head-arg")
    found = opened.probe(
        label, head=head, where=where, space=space, separator=separator, save=save, options=options, **how
    )
    drawn = opened.curve(label, head=head, where=where, space=space, seed=seed, options=options) if curve else None
    judged.show(opened, found, as_json, html=html, png=png, curve=drawn)


@app.command()
def knn(
    store: o.StorePath,
    label: o.Label = "label",
    k: Annotated[int, typer.Option("-k", help="Neighbours.")] = 5,
    weights: Annotated[str, typer.Option(help="softmax (DINO's exp(cosine / 0.07)), uniform, distance.")] = "softmax",
    where: o.Where = None,
    space: o.SpaceName = None,
    folds: Folds = 0,
    seed: Seed = 0,
    near: Near = None,
    drop_leaks: DropLeaks = False,
    save: Save = None,
    html: Html = None,
    png: Png = None,
    as_json: o.Json = False,
) -> None:
    """K nearest neighbours by cosine, weighted, judged on held-out items."""
    opened = es.open(store)
    how = _how(folds, seed, near, drop_leaks, None, None)
    found = opened.knn(label, k=k, weights=weights, where=where, space=space, save=save, **how)
    judged.show(opened, found, as_json, html=html, png=png)


@app.command("zero-shot")
def zero_shot(
    store: o.StorePath,
    label: o.Label = "label",
    classes: Classes = None,
    prompts: Prompts = None,
    templates: Templates = "photo",
    class_vectors: ClassVectors = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    save: Save = None,
    html: Html = None,
    png: Png = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Classify by words alone, judged against a label."""
    opened = es.open(store, device=device, precision=precision)
    named = _classes(classes, prompts) or opened.labels(label, where=where, space=space)
    made = opened.zero_shot(named, templates=_templates(templates), space=space, class_vectors=_vectors(class_vectors))
    found = made.evaluate(label, where=where)
    if save:
        made.save(save, label=label)
    judged.show(opened, found, as_json, html=html, png=png)


@app.command("few-shot")
def few_shot(
    store: o.StorePath,
    label: o.Label = "label",
    head: Annotated[str, typer.Option(help="tip-adapter, tip-adapter-f, blend.")] = "tip-adapter",
    shots: Annotated[int, typer.Option(min=0, help="Labelled images a class; 0 is zero-shot.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    classes: Classes = None,
    prompts: Prompts = None,
    templates: Templates = "photo",
    class_vectors: ClassVectors = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    save: Save = None,
    curve: Annotated[bool, typer.Option("--curve", help="Add the curve over shots a class, five draws each.")] = False,
    html: Html = None,
    png: Png = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Words and a few labelled images a class together, in a space with a text tower."""
    opened = es.open(store, device=device, precision=precision)
    named, vectors, sentences = _classes(classes, prompts), _vectors(class_vectors), _templates(templates)
    found = opened.few_shot(
        label,
        named,
        head=head,
        shots=shots,
        seed=seed,
        where=where,
        space=space,
        save=save,
        templates=sentences,
        class_vectors=vectors,
    )
    drawn = None
    if curve:
        drawn = opened.few_shot_curve(
            label,
            named,
            head=head,
            seed=seed,
            where=where,
            space=space,
            templates=sentences,
            class_vectors=vectors,
        )
    judged.show(opened, found, as_json, html=html, png=png, curve=drawn)


@app.command()
def curve(
    store: o.StorePath,
    label: o.Label = "label",
    head: Head = "logistic",
    budgets: Annotated[str, typer.Option(help="Labels a class, with commas; all is added.")] = "1,2,4,8,16",
    seeds: Annotated[int, typer.Option(min=1, help="Draws a budget.")] = 5,
    seed: Seed = 0,
    where: o.Where = None,
    space: o.SpaceName = None,
    head_arg: HeadArg = [],
    html: Html = None,
    png: Png = None,
    as_json: o.Json = False,
) -> None:
    """How many labels are needed: accuracy over labels a class, mean and spread over several draws."""
    wanted = o.numbers(budgets, "--budgets")
    found = es.open(store).curve(
        label,
        head=head,
        budgets=wanted,
        seeds=seeds,
        seed=seed,
        where=where,
        space=space,
        options=o.pairs(head_arg, "--head-arg"),
    )
    judged.show_curve(found, as_json, html=html, png=png)


@app.command()
def compare(
    store: o.StorePath,
    label: o.Label = "label",
    spaces: Annotated[str | None, typer.Option(help="Names with commas; by default every space with vectors.")] = None,
    heads: Annotated[str, typer.Option(help="Names with commas.")] = "logistic,knn,prototype",
    where: o.Where = None,
    folds: Folds = 0,
    seed: Seed = 0,
    near: Near = None,
    drop_leaks: DropLeaks = False,
    separator: Separator = None,
    html: Html = None,
    as_json: o.Json = False,
) -> None:
    """Spaces and heads side by side on one split, with the chance that a difference is luck."""
    how = _how(folds, seed, near, drop_leaks, None, None)
    named = [s.strip() for s in spaces.split(",") if s.strip()] if spaces else None
    wanted = [h.strip() for h in heads.split(",") if h.strip()]
    found = es.open(store).compare(label, spaces=named, heads=wanted, where=where, separator=separator, **how)
    judged.show_comparison(found, as_json, html=html)


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="A labelled image folder, or a manifest with `uri` and `label`.")],
    html: Annotated[Path, typer.Argument(help="The page to write.")] = Path("report.html"),
    backbone: Annotated[str | None, typer.Option(help="Of a new store: timm/NAME, open_clip/ARCH:TAG, clip …")] = None,
    store: Annotated[Path | None, typer.Option(help="The store's folder; by default SOURCE.store beside it.")] = None,
    head: Head = "logistic",
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessArg = [],
    random_init: o.RandomInit = False,
    as_json: o.Json = False,
) -> None:
    """From a labelled folder to a report in one command: embed what is new, probe, learning curve, one HTML page.

    `embedstore report photos/ report.html --backbone timm/resnet50`
    """
    from embedstore.onego import folder_report

    opened, found, drawn = folder_report(
        source,
        html,
        backbone=backbone,
        store=store,
        head=head,
        say=output.note,
        weights=weights,
        backbone_args=o.pairs(backbone_arg, "--backbone-arg"),
        preprocess=o.pairs(preprocess, "--preprocess"),
        random_init=random_init,
    )
    judged.show(opened, found, as_json, curve=drawn)


def _how(
    folds: int, seed: int, near: float | None, drop_leaks: bool, calibrate: str | None, abstain: float | None
) -> HowOptions:
    """The options of a judgement."""
    return {
        "folds": folds,
        "seed": seed,
        "near": near,
        "drop_leaks": drop_leaks,
        "calibrate": calibrate,
        "abstain": abstain,
    }


def _classes(classes: str | None, prompts: Path | None) -> Any:
    """Names, or prompts by class; None where neither is given."""
    if prompts:
        return _prompts(prompts)
    if not classes:
        return None
    if "," not in classes and Path(classes).is_file():
        return [line.strip() for line in Path(classes).read_text(encoding="utf-8").splitlines() if line.strip()]
    return [c.strip() for c in classes.split(",") if c.strip()]


def _prompts(path: Path) -> dict[str, Any]:
    """A prompt file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise typer.BadParameter(f"{path} is not a JSON file of prompts by class: {e}") from e
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} is not a JSON object of prompts by class")
    return found


def _templates(given: str) -> str | list[str]:
    """The name of a set, or the lines of a file."""
    path = Path(given)
    if not path.is_file():
        return given
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _vectors(path: Path | None) -> Any:
    """An array from a .npy file."""
    if path is None:
        return None
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise typer.BadParameter(f"{path} is not a .npy file of numbers: {e}") from e
