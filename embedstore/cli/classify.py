"""Verbs that classify and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import embedstore as es
from embedstore.cli import options as o
from embedstore.cli import render_evaluation
from embedstore.cli.app import Panel, app
from embedstore.cli.check_protocol import check_protocol
from embedstore.cli.option_groups import (
    EvaluationOptionGroup,
    HeadArg,
    ItemOptionGroup,
    KnnProtocol,
    NearDuplicateOptionGroup,
    ProbeHead,
    ProbeProtocol,
    SaveAs,
    Separator,
    SliceOptionGroup,
    TaskOption,
    TextClassOptionGroup,
    Weight,
    WeightedMetrics,
    load_vectors,
    with_option_groups,
)


@app.command(rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def probe(
    store: o.StorePath,
    which: ItemOptionGroup,
    evaluation: EvaluationOptionGroup,
    slices: SliceOptionGroup,
    label: o.Label = "label",
    head: ProbeHead = None,
    task: TaskOption = "auto",
    weight: Weight = None,
    weighted_metrics: WeightedMetrics = False,
    separator: Separator = None,
    save: SaveAs = None,
    wait: o.SaveWait = 10.0,
    head_arg: HeadArg = [],
    protocol: ProbeProtocol = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Add the learning curve over labels per class.")
    ] = False,
    output: o.Evaluations = [],
    as_json: o.Json = False,
) -> None:
    """Fit a head on the frozen features and evaluate it on held-out items.

    Classes are predicted by logistic regression, numbers by ridge regression, unless another head is named.

    `embedstore probe pets.store label --head lda --folds 5 -o report.html`
    """
    head_options = o.parse_assignments(head_arg, "--head-arg", allow_lists=True)
    if protocol is not None:
        more: dict[str, Any] = {"task": task, "weight": weight, "separator": separator}
        check_protocol(protocol, head or "logistic", head_options, evaluation, learning_curve=learning_curve, **more)
    opened = es.open(store)
    shared: dict[str, Any] = {
        "head": head,
        "task": task,
        "where": which.where,
        "space": which.space,
        "separator": separator,
        "head_options": head_options,
    }
    evaluated = shared | evaluation.to_kwargs() | slices.to_kwargs()
    evaluated |= {"weight": weight, "weighted_metrics": weighted_metrics}
    result = opened.probe(label, save_as=save, wait=wait, protocol=protocol, **evaluated)
    curve = None
    if learning_curve:
        copies = NearDuplicateOptionGroup(evaluation.near_duplicate_policy, evaluation.near_duplicate_threshold)
        curve = opened.learning_curve(label, seed=evaluation.seed, **shared, **copies.to_kwargs())
    render_evaluation.print_evaluation(opened, result, output, as_json, curve=curve)


@app.command(rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def knn(
    store: o.StorePath,
    which: ItemOptionGroup,
    evaluation: EvaluationOptionGroup,
    slices: SliceOptionGroup,
    label: o.Label = "label",
    k: Annotated[int | None, typer.Option("-k", help="The number of neighbors; 5 by default.")] = None,
    neighbor_weights: Annotated[
        str | None,
        typer.Option(
            help="The vote of a neighbor: softmax (DINO: exp(cosine / 0.07), the default), uniform or distance."
        ),
    ] = None,
    task: TaskOption = "auto",
    separator: Separator = None,
    save: SaveAs = None,
    wait: o.SaveWait = 10.0,
    protocol: KnnProtocol = None,
    output: o.Evaluations = [],
    as_json: o.Json = False,
) -> None:
    """Evaluate the k nearest neighbors by cosine on held-out items."""
    if protocol is not None:
        options = {name: v for name, v in (("k", k), ("weights", neighbor_weights)) if v is not None}
        check_protocol(protocol, "knn", options, evaluation, task=task, separator=separator)
    opened = es.open(store)
    result = opened.knn(
        label,
        k=k,
        weights=neighbor_weights,
        task=task,
        where=which.where,
        space=which.space,
        separator=separator,
        save_as=save,
        wait=wait,
        protocol=protocol,
        **evaluation.to_kwargs(),
        **slices.to_kwargs(),
    )
    render_evaluation.print_evaluation(opened, result, output, as_json)


@app.command(rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def retrieval(
    store: o.StorePath,
    which: ItemOptionGroup,
    copies: NearDuplicateOptionGroup,
    label: Annotated[
        str | None, typer.Argument(metavar="LABEL", help="A column of the items: items of the same label are relevant.")
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Search with these texts (or lists of texts) for their images, and back."),
    ] = None,
    caption_vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .npy file (T, D) with one vector per caption, computed elsewhere."),
    ] = None,
    k: Annotated[str, typer.Option("-k", help="Ranks of the figures, separated by commas.")] = "1,5,10",
    queries: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="Items of this split search among the others; by default each item does."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Also report R@1 by the values of this column.")
    ] = None,
    separator: Separator = None,
    output: Annotated[list[Path], o.output_option("Write the report (.html). Repeatable.", ".html")] = [],
    as_json: o.Json = False,
) -> None:
    """Evaluate how well items find others of their label, or captions and images each other.

    `embedstore retrieval photos.store --captions caption -k 1,5,10`
    """
    report = es.open(store).retrieval(
        label,
        captions=captions,
        caption_vectors=load_vectors(caption_vectors, "--caption-vectors"),
        ks=o.parse_integers(k, "-k"),
        queries=queries,
        where=which.where,
        space=which.space,
        separator=separator,
        by=by,
        **copies.to_kwargs(),
    )
    render_evaluation.print_retrieval(report, output, as_json)


@app.command("zero-shot", rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def zero_shot(
    store: o.StorePath,
    which: ItemOptionGroup,
    text: TextClassOptionGroup,
    slices: SliceOptionGroup,
    label: o.Label = "label",
    save: SaveAs = None,
    wait: o.SaveWait = 10.0,
    output: o.Evaluations = [],
    as_json: o.Json = False,
) -> None:
    """Classify by text alone, and evaluate the result against a label.

    `embedstore zero-shot pets.store label --classes cat,dog`
    """
    opened = es.open(store, device=text.device, precision=text.precision)
    classes = text.load_classes() or opened.distinct_labels(label, where=which.where, space=which.space)
    classifier = opened.zero_shot(classes, space=which.space, **text.to_kwargs())
    result = classifier.evaluate(label, where=which.where, **slices.to_kwargs())
    if save:
        classifier.save(save, label=label, wait=wait)
    render_evaluation.print_evaluation(opened, result, output, as_json)


@app.command("few-shot", rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def few_shot(
    store: o.StorePath,
    which: ItemOptionGroup,
    copies: NearDuplicateOptionGroup,
    text: TextClassOptionGroup,
    slices: SliceOptionGroup,
    label: o.Label = "label",
    head: Annotated[str, typer.Option(help="The head: tip-adapter, tip-adapter-f or blend.")] = "tip-adapter",
    shots: Annotated[int, typer.Option(min=0, help="Labeled images per class; 0 is zero-shot.")] = 16,
    seed: Annotated[int, typer.Option(help="Random seed of the draw.")] = 0,
    save: SaveAs = None,
    wait: o.SaveWait = 10.0,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Add the curve over shots, five draws each.")
    ] = False,
    output: o.Evaluations = [],
    as_json: o.Json = False,
) -> None:
    """Classify by text and a few labeled images per class; the space needs a text tower."""
    opened = es.open(store, device=text.device, precision=text.precision)
    classes = text.load_classes()
    shared: dict[str, Any] = {"head": head, "seed": seed, "where": which.where, "space": which.space}
    shared |= text.to_kwargs() | copies.to_kwargs()
    result = opened.few_shot(label, classes, shots=shots, save_as=save, wait=wait, **shared, **slices.to_kwargs())
    curve = opened.few_shot_curve(label, classes, **shared) if learning_curve else None
    render_evaluation.print_evaluation(opened, result, output, as_json, curve=curve)


@app.command("learning-curve", rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def learning_curve(
    store: o.StorePath,
    which: ItemOptionGroup,
    copies: NearDuplicateOptionGroup,
    label: o.Label = "label",
    head: ProbeHead = None,
    task: TaskOption = "auto",
    labels_per_class: Annotated[
        str | None,
        typer.Option(
            help="Numbers of labels per class, separated by commas; a last step uses all labels. By default "
            "1,2,4,8,16. For a numeric label these are totals, by default 20,50,100,200,500."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Random draws per number of labels.")] = 5,
    seed: o.Seed = 0,
    separator: Separator = None,
    head_arg: HeadArg = [],
    output: Annotated[
        list[Path], o.output_option("Write the curve (.html or .png). Repeatable.", ".html", ".png")
    ] = [],
    as_json: o.Json = False,
) -> None:
    """Measure how many labels are needed: accuracy over labels per class, mean and standard deviation."""
    curve = es.open(store).learning_curve(
        label,
        head=head,
        task=task,
        labels_per_class=o.parse_integers(labels_per_class, "--labels-per-class") if labels_per_class else None,
        repeats=repeats,
        seed=seed,
        where=which.where,
        space=which.space,
        separator=separator,
        head_options=o.parse_assignments(head_arg, "--head-arg", allow_lists=True),
        **copies.to_kwargs(),
    )
    render_evaluation.print_curve(curve, output, as_json)


@app.command("compare-heads", rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def compare_heads(
    store: o.StorePath,
    evaluation: EvaluationOptionGroup,
    text: TextClassOptionGroup,
    label: o.Label = "label",
    spaces: Annotated[
        str | None, typer.Option(help="Names of spaces, separated by commas; by default every space with vectors.")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help="Names of heads, separated by commas; also zero-shot, tip-adapter, tip-adapter-f and blend, "
            "which need a text tower. By default logistic,knn,prototype; for a label of numbers ridge,knn."
        ),
    ] = None,
    task: TaskOption = "auto",
    labels_per_class: Annotated[
        str | None, typer.Option(help="Add learning curves at these labels per class, e.g. 1,4,16.")
    ] = None,
    where: o.Where = None,
    separator: Separator = None,
    output: Annotated[list[Path], o.output_option("Write the comparison (.html). Repeatable.", ".html")] = [],
    as_json: o.Json = False,
) -> None:
    """Compare spaces and heads on the same held-out items, with the significance of each difference."""
    comparison = es.open(store, device=text.device, precision=text.precision).compare_heads(
        label,
        spaces=o.parse_names(spaces) if spaces else None,
        heads=o.parse_names(heads) if heads else None,
        task=task,
        labels_per_class=o.parse_integers(labels_per_class, "--labels-per-class") if labels_per_class else (),
        where=where,
        separator=separator,
        classes=text.load_classes(),
        **text.to_kwargs(),
        **evaluation.to_kwargs(),
    )
    render_evaluation.print_comparison(comparison, output, as_json)
