"""Verbs that classify and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import embedstore as es
from embedstore.cli import console, render_evaluation
from embedstore.cli import options as o
from embedstore.cli.option_groups import (
    EvaluationOptionGroup,
    Head,
    HeadArg,
    Html,
    ItemOptionGroup,
    OutputOptionGroup,
    Save,
    Seed,
    Separator,
    TextClassOptionGroup,
    with_option_groups,
)
from embedstore.cli.put_in import app


@app.command()
@with_option_groups
def probe(
    store: o.StorePath,
    which: ItemOptionGroup,
    how: EvaluationOptionGroup,
    shown: OutputOptionGroup,
    label: o.Label = "label",
    head: Head = "logistic",
    separator: Separator = None,
    save: Save = None,
    head_arg: HeadArg = [],
    curve: Annotated[bool, typer.Option("--curve", help="Add the learning curve over labels a class.")] = False,
) -> None:
    """A classifier on frozen features, judged on held-out items; by default logistic regression, C by cross-validation.

    `embedstore probe pets.store label --head lda --folds 5 --html report.html`
    """
    opened = es.open(store)
    options = o.parse_assignments(head_arg, "--head-arg", allow_lists=True)
    asked: dict[str, Any] = {"where": which.where, "space": which.space, "separator": separator, "options": options}
    found = opened.probe(label, head=head, save=save, **asked, **how.to_kwargs())
    drawn = opened.curve(label, head=head, seed=how.seed, **asked) if curve else None
    render_evaluation.print_evaluation(opened, found, shown, curve=drawn)


@app.command()
@with_option_groups
def knn(
    store: o.StorePath,
    which: ItemOptionGroup,
    how: EvaluationOptionGroup,
    shown: OutputOptionGroup,
    label: o.Label = "label",
    k: Annotated[int, typer.Option("-k", help="Neighbours.")] = 5,
    weights: Annotated[str, typer.Option(help="softmax (DINO's exp(cosine / 0.07)), uniform, distance.")] = "softmax",
    separator: Separator = None,
    save: Save = None,
) -> None:
    """K nearest neighbours by cosine, weighted, judged on held-out items."""
    opened = es.open(store)
    found = opened.knn(
        label,
        k=k,
        weights=weights,
        where=which.where,
        space=which.space,
        separator=separator,
        save=save,
        **how.to_kwargs(),
    )
    render_evaluation.print_evaluation(opened, found, shown)


@app.command("zero-shot")
@with_option_groups
def zero_shot(
    store: o.StorePath,
    which: ItemOptionGroup,
    words: TextClassOptionGroup,
    shown: OutputOptionGroup,
    label: o.Label = "label",
    save: Save = None,
) -> None:
    """Classify by words alone, judged against a label."""
    opened = es.open(store, device=words.device, precision=words.precision)
    named = words.load_classes() or opened.labels(label, where=which.where, space=which.space)
    made = opened.zero_shot(
        named, templates=words.load_templates(), space=which.space, class_vectors=words.load_class_vectors()
    )
    found = made.evaluate(label, where=which.where)
    if save:
        made.save(save, label=label)
    render_evaluation.print_evaluation(opened, found, shown)


@app.command("few-shot")
@with_option_groups
def few_shot(
    store: o.StorePath,
    which: ItemOptionGroup,
    words: TextClassOptionGroup,
    shown: OutputOptionGroup,
    label: o.Label = "label",
    head: Annotated[str, typer.Option(help="tip-adapter, tip-adapter-f, blend.")] = "tip-adapter",
    shots: Annotated[int, typer.Option(min=0, help="Labelled images a class; 0 is zero-shot.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    save: Save = None,
    curve: Annotated[bool, typer.Option("--curve", help="Add the curve over shots a class, five draws each.")] = False,
) -> None:
    """Words and a few labelled images a class together, in a space with a text tower."""
    opened = es.open(store, device=words.device, precision=words.precision)
    named = words.load_classes()
    asked: dict[str, Any] = {
        "head": head,
        "seed": seed,
        "where": which.where,
        "space": which.space,
        "templates": words.load_templates(),
        "class_vectors": words.load_class_vectors(),
    }
    found = opened.few_shot(label, named, shots=shots, save=save, **asked)
    drawn = opened.few_shot_curve(label, named, **asked) if curve else None
    render_evaluation.print_evaluation(opened, found, shown, curve=drawn)


@app.command()
@with_option_groups
def curve(
    store: o.StorePath,
    which: ItemOptionGroup,
    shown: OutputOptionGroup,
    label: o.Label = "label",
    head: Head = "logistic",
    budgets: Annotated[str, typer.Option(help="Labels a class, with commas; all is added.")] = "1,2,4,8,16",
    seeds: Annotated[int, typer.Option(min=1, help="Draws a budget.")] = 5,
    seed: Seed = 0,
    separator: Separator = None,
    head_arg: HeadArg = [],
) -> None:
    """How many labels are needed: accuracy over labels a class, mean and spread over several draws."""
    wanted = o.parse_integers(budgets, "--budgets")
    found = es.open(store).curve(
        label,
        head=head,
        labels_per_class=wanted,
        repeats=seeds,
        seed=seed,
        where=which.where,
        space=which.space,
        separator=separator,
        options=o.parse_assignments(head_arg, "--head-arg", allow_lists=True),
    )
    render_evaluation.print_curve(found, shown)


@app.command()
@with_option_groups
def compare(
    store: o.StorePath,
    how: EvaluationOptionGroup,
    label: o.Label = "label",
    spaces: Annotated[str | None, typer.Option(help="Names with commas; by default every space with vectors.")] = None,
    heads: Annotated[str, typer.Option(help="Names with commas.")] = "logistic,knn,prototype",
    budgets: Annotated[
        str | None, typer.Option(help="Labels a class, with commas, e.g. 1,4,16: each one's learning curve too.")
    ] = None,
    where: o.Where = None,
    separator: Separator = None,
    html: Html = None,
    as_json: o.Json = False,
) -> None:
    """Spaces and heads side by side on one split: which backbone, which head, how many labels, and is it luck?"""
    named = [s.strip() for s in spaces.split(",") if s.strip()] if spaces else None
    wanted = [h.strip() for h in heads.split(",") if h.strip()]
    few = o.parse_integers(budgets, "--budgets") if budgets else ()
    found = es.open(store).compare(
        label, spaces=named, heads=wanted, labels_per_class=few, where=where, separator=separator, **how.to_kwargs()
    )
    render_evaluation.print_comparison(found, as_json, html=html)


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="A labelled image folder, or a manifest with `uri` and `label`.")],
    html: Annotated[Path, typer.Argument(help="The page to write.")] = Path("report.html"),
    backbone: Annotated[str | None, typer.Option(help="Of a new store: timm/NAME, open_clip/ARCH:TAG, clip …")] = None,
    store: Annotated[Path | None, typer.Option(help="The store's folder; by default SOURCE.store beside it.")] = None,
    head: Head = "logistic",
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    random_init: o.RandomInit = False,
    as_json: o.Json = False,
) -> None:
    """From a labelled folder to a report in one command: embed what is new, probe, learning curve, one HTML page.

    `embedstore report photos/ report.html --backbone timm/resnet50`
    """
    from embedstore.quickstart.folder_report import folder_report

    opened, found, drawn = folder_report(
        source,
        html,
        backbone=backbone,
        store_path=store,
        head=head,
        progress=console.print_note,
        weights=weights,
        backbone_args=o.parse_assignments(backbone_arg, "--backbone-arg"),
        preprocess=o.parse_assignments(preprocess, "--preprocess"),
        random_init=random_init,
    )
    render_evaluation.print_evaluation(opened, found, OutputOptionGroup(as_json=as_json), curve=drawn)
