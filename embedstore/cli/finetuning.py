"""Verbs that tune a backbone and change over to what came of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.put_in import app
from embedstore.finetuning.history import AugmentationSheet

if TYPE_CHECKING:
    from embedstore.classify.evaluation.compare_spaces import SpaceComparison
    from embedstore.finetuning.history import Epoch, TrainingStep
    from embedstore.finetuning.settings import FinetuneOptions
    from embedstore.operations.finetune_result import FinetuneResult

Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="K=V",
        help="Set any other setting: layer_decay, warmup_ratio, weight_decay, label_smoothing, class_weights, "
        "batch_size, micro_batch_size, update_batchnorm, refit, wise_alpha, lora_rank, patience, selection_metric, "
        "num_workers; augmentation of the images: min_crop_scale, flip, rotate, color_jitter, randaugment, "
        "min_jpeg_quality, cutout, mixup, cutmix.",
    ),
]


@app.command()
def finetune(
    store: o.StorePath,
    label: o.Label = "label",
    layers: Annotated[str, typer.Option(help="head, last-N or first-N blocks, all, or lora adapters.")] = "all",
    epochs: Annotated[int, typer.Option(min=0, help="At most; it stops early when validation gets no better.")] = 10,
    lr: Annotated[float | None, typer.Option(help="Of the last block [1e-4 for CNNs, 1e-5 for transformers].")] = None,
    start: Annotated[str, typer.Option(help="The head begins as probe (LP-FT), text or random.")] = "probe",
    average: Annotated[str, typer.Option(help="Weights: ema, wise (chosen on validation) or none.")] = "ema",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    more: Set = [],
    embed: Annotated[bool, typer.Option("--embed", help="Embed all images into the new space and compare.")] = False,
    name: Annotated[str | None, typer.Option(help="Of the new space.")] = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Train a space's backbone further on a label: a checkpoint, a new space beside the old one. Resumable.

    `embedstore finetune pets.store species --layers last-2 --embed`
    """
    opened = es.open(store, device=device, precision=precision, allow_code=allow_code)
    given: dict[str, Any] = {"layers": layers, "epochs": epochs, "lr": lr, "seed": seed, "precision": precision}
    given |= {"head_init": start, "weight_average": average} | o.parse_assignments(more, "--set")
    made = opened.finetune(
        label,
        space=space,
        space_name=name,
        embed=embed,
        where=where,
        progress=None if sys.stderr.isatty() else _note_augmentation_sheet,  # a bar notes it itself
        **cast("FinetuneOptions", given),
    )
    if made.is_helper_process:
        return
    if as_json:
        console.print_json(made.to_json())
        return
    _print_tuned(made)
    if made.comparison is None:
        console.print_note(f"embed into it with `embedstore reembed {store} --space {made.space}`")
    else:
        _print_versus(made.comparison)
        console.print_note(f"make it the default with `embedstore use {store} {made.space}`")


@app.command()
def reembed(
    store: o.StorePath,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    allow_code: o.AllowCode = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Give every image of the store a vector in a space; only what is missing is computed, resumable."""
    opened = es.open(store, device=device, precision=precision, allow_code=allow_code)
    report = opened.reembed(space, wait=wait)
    console.print_json(report.to_json()) if as_json else print(report.summary())


@app.command()
def versus(
    store: o.StorePath,
    label: o.Label = "label",
    new: Annotated[str | None, typer.Option(help="A space; by default the latest tuned one.")] = None,
    old: Annotated[str | None, typer.Option(help="A space; by default its parent.")] = None,
    where: o.Where = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Two spaces side by side on the same held-out items: probe, kNN, zero-shot, per class, with significance."""
    found = es.open(store, device=device, allow_code=allow_code).versus(label, new, old, where=where, seed=seed)
    console.print_json(found.to_json()) if as_json else _print_versus(found)


@app.command()
def use(
    store: o.StorePath,
    space: Annotated[str, typer.Argument(help="Name or key.")],
    refit: Annotated[
        bool, typer.Option("--refit", help="First fit the kept heads of its parent and children again in it.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Make a space the one that is used when none is named; at once, and back in the same way."""
    opened = es.open(store)
    done = opened.use(space, refit=refit)
    if as_json:
        console.print_json(done)
        return
    for word in ("refitted", "left"):
        for line in done[word]:
            print(f"{word}: {line}")
    if done["lacking"]:
        console.print_note(
            f"{done['lacking']:,} images have no vector in {space} yet and are not found there: `embedstore reembed "
            f"{store} --space {space}`"
        )


@app.command("drop-space")
def drop_space(
    store: o.StorePath,
    space: Annotated[str, typer.Argument(help="Name or key.")],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Take a space out with its vectors, indexes and checkpoint; refused while heads depend on it."""
    done = es.open(store).drop_space(space, wait=wait)
    console.print_json(done) if as_json else print(
        f"dropped {space}: {done['vectors']:,} vectors, {console.format_bytes(done['bytes'])} freed"
    )


@app.command()
def advise(
    store: o.StorePath,
    label: o.Label = "label",
    where: o.Where = None,
    space: o.SpaceName = None,
    seed: Annotated[int, typer.Option(help="Of the split and the draws.")] = 0,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Frozen features, a new head, the last layers or all of them: which fits, why, and what to expect."""
    a = es.open(store, device=device, allow_code=allow_code).advise(label, space=space, where=where, seed=seed)
    if as_json:
        console.print_json(a.to_json())
        return
    print(f"{a.strategy.value}: `{a.command}`")
    print(f"expected gain in accuracy: {a.expected_gain[0]:.3f} to {a.expected_gain[1]:.3f}")
    for reason in a.reasons:
        print(f"- {reason}")
    rows = [(r["data"], r["domain"], r["strategy"]) for r in a.to_json()["table"]]
    here = (a.size.value, "different" if a.domain.is_different else "similar")
    console.print_table(("data", "domain", "strategy", ""), [(*r, "<- here" if r[:2] == here else "") for r in rows])


@app.command()
def lore(
    store: o.StorePath,
    label: o.Label = "label",
    budgets: Annotated[str, typer.Option(help="Labels a class, with commas between; all labels come last.")] = "10,50",
    last: Annotated[str, typer.Option(help="Which layers the last ones are.")] = "last-2",
    epochs: Annotated[int, typer.Option(min=0, help="Of tuning, at most; from scratch three times as many.")] = 10,
    lr: Annotated[float | None, typer.Option(help="Of tuning.")] = None,
    more: Set = [],
    png: Annotated[Path | None, typer.Option(help="Draw the table.")] = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """From scratch, frozen probe, last layers, all layers over labels a class: the table of the textbooks, measured."""
    opened = es.open(store, device=device, allow_code=allow_code)
    given = cast("FinetuneOptions", {"epochs": epochs, "lr": lr} | o.parse_assignments(more, "--set"))
    found = opened.lore(
        label,
        labels_per_class=o.parse_integers(budgets, "--budgets"),
        last_layers=last,
        plot_path=png,
        where=where,
        space=space,
        progress=lambda r: console.print_note(
            f"{r.regime}, {r.labels_per_class or 'all'} labels per class: {r.accuracy:.3f} in {r.seconds:.0f} s"
        ),
        **given,
    )
    if as_json:
        console.print_json(found.to_json())
        return
    print(f"accuracy on {found.held_out:,} held-out items ({found.split})")
    ways = list(found.rows()[0][2])
    rows = [(labels, train, *(f"{by[w]:.3f}" for w in ways)) for labels, train, by in found.rows()]
    console.print_table(("labels a class", "images", *ways), rows)
    if png:
        console.print_note(f"wrote {png}")


def _note_augmentation_sheet(event: AugmentationSheet | TrainingStep | Epoch) -> None:
    """Print where the augmented training images are drawn, before training begins."""
    if isinstance(event, AugmentationSheet):
        console.print_note(f"augmented training images: {event.path}")


def _print_tuned(made: FinetuneResult) -> None:
    """A run in words."""
    t = made.training
    console.print_table(
        ("epoch", "training loss", "validation loss", "accuracy", "mean recall", "seconds"),
        [
            (
                e.number,
                e.train_loss,
                e.val_score.loss,
                e.val_score.accuracy,
                e.val_score.mean_recall,
                round(e.seconds, 1),
            )
            for e in t.history.epochs
        ],
    )
    mixed = "" if t.wise_alpha is None else f", mixed {t.wise_alpha:g} new to {1 - t.wise_alpha:g} old"
    print(
        f"space {made.space}: epoch {t.best_epoch} kept{mixed}; {t.train_images:,} training images, "
        f"{t.val_images:,} validation images, {t.tuned_blocks} of {t.blocks} blocks, "
        f"{t.trainable_parameters:,} parameters, {t.seconds:.0f} s"
    )
    print(f"checkpoint, curves and augmentation: {made.checkpoint_folder}")
    for note in made.notes:
        console.print_note(note)


def _print_versus(v: SpaceComparison) -> None:
    """Two spaces in words."""
    print(f"{v.baseline} against {v.space}: {v.n_held_out:,} held-out items ({v.split}), {v.n_train:,} trained on")
    rows = [
        (
            p.name,
            f"{p.baseline.accuracy:.4f}",
            f"{p.candidate.accuracy:.4f}",
            f"{p.accuracy_gain.value:+.4f} [{p.accuracy_gain.low:+.3f}, {p.accuracy_gain.high:+.3f}]",
            f"{p.mcnemar.p_value:.3g}",
        )
        for p in v.evaluations
    ]
    console.print_table(("accuracy of", "old", "new", "gain and 95% interval", "McNemar p"), rows)
    worst = [(c, n, f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}") for c, n, a, b in v.per_class[:20]]
    console.print_table(("class", "items", "old recall", "new recall", "change"), worst)
    for name, value in v.cost.items():
        if value is not None:
            print(f"{name.replace('_', ' ')}: {value:,.1f}")
    if v.has_same_vectors:
        console.print_note("the weights are the same: both spaces hold the same vectors")
