"""Verbs that fine-tune a backbone and compare the result with the original."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.classify.evaluation.compare_spaces import SpaceComparison
    from embedstore.finetuning.strategies import StrategyOutlook, StrategyResult
    from embedstore.operations.finetune_result import FinetuneResult

Setting = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="K=V",
        help="Set any other field of FinetuneSettings or AugmentationSettings, e.g. batch_size=16. Repeatable.",
    ),
]


@app.command(rich_help_panel=Panel.FINETUNE)
def finetune(
    store: o.StorePath,
    label: o.Label = "label",
    layers: Annotated[
        str, typer.Option(help="The layers to train: head, last-N, first-N (blocks), all, or lora (adapters).")
    ] = "all",
    epochs: Annotated[
        int, typer.Option(min=0, help="The largest number of epochs; training stops early without improvement.")
    ] = 10,
    lr: Annotated[
        float | None,
        typer.Option(help="The learning rate of the last block. By default 1e-4 for CNNs, 1e-5 for transformers."),
    ] = None,
    head_init: Annotated[str, typer.Option(help="The initial head: probe (LP-FT), text or random.")] = "probe",
    weight_average: Annotated[
        str, typer.Option(help="The average of the weights: ema, wise (chosen on validation) or none.")
    ] = "ema",
    seed: Annotated[int, typer.Option(help="Random seed of the training.")] = 0,
    setting: Setting = [],
    embed: Annotated[
        bool, typer.Option("--embed/--no-embed", help="Embed all items into the new space and compare.")
    ] = True,
    space_name: Annotated[str | None, typer.Option(help="The name of the new space.")] = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    allow_code: o.AllowCode = [],
    wait: o.Wait = 60.0,
    as_json: o.Json = False,
) -> None:
    """Train the backbone of a space on a label: a checkpoint and a new space next to the old one. Resumable.

    `embedstore finetune pets.store species --layers last-2`
    """
    opened = es.open(store, device=device, precision=precision, allow_code=allow_code)
    settings: dict[str, Any] = {"layers": layers, "epochs": epochs, "lr": lr, "seed": seed, "precision": precision}
    settings |= {"head_init": head_init, "weight_average": weight_average} | o.parse_assignments(setting, "--set")
    result = opened.finetune(label, space=space, space_name=space_name, embed=embed, where=where, wait=wait, **settings)
    if result.is_helper_process:
        return
    if as_json:
        console.print_json(result.to_json())
        return
    _print_result(result)
    if result.comparison is None:
        console.print_note(
            f"embed into it with `embedstore reembed {shlex.quote(str(store))} --space {shlex.quote(result.space)}`"
        )
    else:
        _print_comparison(result.comparison)
        console.print_note(switch_note(store, result.space, result.comparison))


def switch_note(store: Path, space: str, comparison: SpaceComparison) -> str:
    """Return what to do with a new space: make it the default only where its probe is better."""
    probe = comparison.evaluations[0]
    gain, command = probe.accuracy_gain, f"`embedstore set-default {shlex.quote(str(store))} {shlex.quote(space)}`"
    if gain.value <= 0:
        return f"keep {comparison.baseline}: with {space}, {probe.name} is not better ({gain.value:+.4f})"
    if gain.low <= 0:
        return f"{space} may be no better: the interval of the gain includes 0; {command} makes it the default anyway"
    return f"make it the default with {command}"


@app.command("compare-spaces", rich_help_panel=Panel.FINETUNE)
def compare_spaces(
    store: o.StorePath,
    label: o.Label = "label",
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="The space; by default the latest fine-tuned one.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="The space to compare with; by default its parent.")
    ] = None,
    where: o.Where = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Compare two spaces on the same held-out items: probe, kNN, zero-shot, per class, with significance."""
    opened = es.open(store, device=device, allow_code=allow_code)
    comparison = opened.compare_spaces(label, space, baseline, where=where, seed=seed)
    console.print_json(comparison.to_json()) if as_json else _print_comparison(comparison)


@app.command(rich_help_panel=Panel.FINETUNE)
def advise(
    store: o.StorePath,
    label: o.Label = "label",
    where: o.Where = None,
    space: o.SpaceName = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split and the draws.")] = 0,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Recommend frozen features, a new head, or fine-tuning of the last or all layers, with the expected gain."""
    from embedstore.reports.evaluation_text import leak_headline

    a = es.open(store, device=device, allow_code=allow_code).advise(label, space=space, where=where, seed=seed)
    facts = a.to_json()
    if as_json:
        console.print_json(facts)
        return
    if leak := leak_headline(a.leak):
        console.print_line(leak)
    low, high = facts["expected_gain"]
    console.print_line(f"{facts['strategy']}: `{facts['command']}`")
    console.print_line(f"expected gain in accuracy: {low:.3f} to {high:.3f}")
    for reason in facts["reasons"]:
        console.print_line(f"- {reason}")
    for note in a.notes:
        console.print_note(note)
    rows = [(r["data"], r["domain"], r["strategy"]) for r in facts["table"]]
    figures = facts["figures"]
    here = (figures["size"], "different" if figures["different"] else "similar")
    console.print_table(("data", "domain", "strategy", ""), [(*r, "<- here" if r[:2] == here else "") for r in rows])


@app.command("compare-strategies", rich_help_panel=Panel.FINETUNE)
def compare_strategies(
    store: o.StorePath,
    label: o.Label = "label",
    labels_per_class: Annotated[
        str, typer.Option(help="Numbers of labels per class, separated by commas; a last step uses all labels.")
    ] = "10,50",
    last_layers: Annotated[str, typer.Option(help='The blocks that "last layers" trains.')] = "last-2",
    epochs: Annotated[
        int, typer.Option(min=0, help="The largest number of epochs of fine-tuning; three times as many from scratch.")
    ] = 10,
    lr: Annotated[float | None, typer.Option(help="The learning rate of fine-tuning.")] = None,
    setting: Setting = [],
    where: o.Where = None,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    output: Annotated[list[Path], o.output_option("Write the plot (.png). Repeatable.", ".png")] = [],
    as_json: o.Json = False,
) -> None:
    """Compare training strategies on your own data: from scratch, frozen probe, last layers, all layers.

    Every result is a training run of its own, so this takes long; it begins with an estimate. After an interruption
    the same command keeps the trainings that are done.
    """
    opened = es.open(store, device=device, allow_code=allow_code)
    settings = {"epochs": epochs, "lr": lr} | o.parse_assignments(setting, "--set")
    comparison = opened.compare_strategies(
        label,
        labels_per_class=o.parse_integers(labels_per_class, "--labels-per-class"),
        last_layers=last_layers,
        where=where,
        space=space,
        progress=_StrategyPrinter(),
        **settings,
    )
    from embedstore.finetuning.plots import draw_comparison

    o.write_outputs(output, {".png": lambda path: draw_comparison(comparison, path)})
    facts = comparison.to_json()
    if as_json:
        console.print_json(facts)
        return
    console.print_line(f"accuracy on {counted(facts['held_out'], 'held-out item')} ({facts['split']})")
    strategies = list(comparison.rows()[0][2])
    rows = [
        (labels, n_train, *(f"{accuracy[s]:.3f}" for s in strategies))
        for labels, n_train, accuracy in comparison.rows()
    ]
    console.print_table(("labels per class", "items", *strategies), rows)


class _StrategyPrinter:
    """Prints what a comparison is going to train, and each result as soon as it is measured."""

    def __init__(self) -> None:
        self._outlook: StrategyOutlook | None = None
        self._results: list[StrategyResult] = []

    def __call__(self, event: StrategyOutlook | StrategyResult) -> None:
        """Print one event."""
        from embedstore.finetuning.strategies import StrategyResult

        if isinstance(event, StrategyResult):
            self._print_result(event)
        else:
            self._print_outlook(event)

    def _print_outlook(self, event: StrategyOutlook) -> None:
        self._outlook = event
        done = f", {len(event.done)} more are done already" if event.done else ""
        console.print_note(
            f"{len(event.seconds)} trainings{done}; about {_duration(event.remaining([]))}. After an "
            "interruption the same command keeps the trainings that are done"
        )

    def _print_result(self, r: StrategyResult) -> None:
        self._results.append(r)
        left = self._outlook.remaining(self._results) if self._outlook else 0.0
        labels = counted(r.labels_per_class, "label") if r.labels_per_class else "all labels"
        rest = f"; about {_duration(left)} left" if left else ""
        console.print_note(f"{r.regime}, {labels} per class: accuracy {r.accuracy:.3f} in {r.seconds:.0f} s{rest}")


def _duration(seconds: float) -> str:
    """Return a time in words, as exactly as an estimate deserves."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_result(result: FinetuneResult) -> None:
    """Print a training run."""
    t = result.training
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
    console.print_line(
        f"space {result.space}: epoch {t.best_epoch} kept{mixed}; {counted(t.train_images, 'training item')}, "
        f"{counted(t.val_images, 'validation item')}, {t.tuned_blocks} of {t.blocks} blocks, "
        f"{t.trainable_parameters:,} parameters, {t.seconds:.0f} s"
    )
    console.print_line(f"checkpoint, curves and augmentation: {result.checkpoint_folder}")
    for note in result.notes:
        console.print_note(note)


def _print_comparison(c: SpaceComparison) -> None:
    """Print two spaces next to each other."""
    from embedstore.reports import comparison_text

    console.print_line(
        f"{c.baseline} and {c.space}: {counted(c.n_held_out, 'held-out item')} ({c.split}), "
        f"{counted(c.n_train, 'training item')}"
    )
    rows = [
        (
            p.name,
            f"{p.baseline.accuracy:.4f}",
            f"{p.candidate.accuracy:.4f}",
            f"{p.accuracy_gain.value:+.4f} [{p.accuracy_gain.low:+.3f}, {p.accuracy_gain.high:+.3f}]",
            f"{p.mcnemar.p_value:.3g}",
        )
        for p in c.evaluations
    ]
    console.print_table(("accuracy of", c.baseline, c.space, "gain and 95% interval", "McNemar p"), rows)
    for note in (*comparison_text.power_notes(c.evaluations[0].power, c.n_held_out), *c.notes):
        console.print_note(note)
