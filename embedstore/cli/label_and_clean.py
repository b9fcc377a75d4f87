"""Verbs that use kept classifiers, and that help to label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.option_groups import Folds, Head, Seed, Separator
from embedstore.cli.put_in import app

if TYPE_CHECKING:
    from embedstore.store import Store

HeadName = Annotated[str, typer.Argument(metavar="HEAD", help="A head kept with --save.")]
Sheet = Annotated[Path | None, typer.Option(help="Write a contact sheet as one HTML page.")]


@app.command()
def predict(
    store: o.StorePath,
    head: HeadName,
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Write a kept head's class and probability for every matching item into the table `predictions`.

    From then on pred.HEAD and pred.HEAD.score can stand in every --where.
    `embedstore predict pets.store species --where "pred.species is null"` takes what is new or changed.
    """
    found = es.open(store).predict(head, where=where, space=space)
    if as_json:
        console.print_json(found)
        return
    print(f"{found['head']}: {found['items']:,} items in {found['seconds']:.2f} s")
    console.print_table(("class", "items"), list(found["labels"].items())[:50])


@app.command()
def heads(
    store: o.StorePath,
    forget: Annotated[str | None, typer.Option(help="Remove this head and its predictions.")] = None,
    as_json: o.Json = False,
) -> None:
    """The classifiers that are kept in a store."""
    opened = es.open(store)
    if forget:
        opened.forget_head(forget)
        console.print_note(f"removed {forget}")
    names = {s.key: s.name for s in opened.spaces}
    rows = [
        {
            "head": h.name,
            "kind": h.kind,
            "label": h.label,
            "space": names.get(h.space_key, h.space_key),
            "classes": len(h.metadata["classes"]),
            "accuracy": h.metadata.get("accuracy"),
            "split": h.metadata.get("split"),
            "created": str(h.created)[:19],
        }
        for h in opened.heads
    ]
    if as_json:
        console.print_json(rows)
    else:
        console.print_table(
            ("head", "kind", "label", "space", "classes", "accuracy", "split", "created"),
            [tuple(r.values()) for r in rows],
        )


@app.command("export-head")
def export_head(
    store: o.StorePath,
    head: HeadName,
    path: Annotated[Path, typer.Argument(help="FILE.npz (weights, intercepts, classes) or FILE.onnx.")],
    as_json: o.Json = False,
) -> None:
    """Write a linear head for use elsewhere."""
    es.open(store).export_head(head, path)
    console.print_json({"path": str(path)}) if as_json else print(f"wrote {path}")


@app.command()
def suspects(
    store: o.StorePath,
    label: o.Label = "label",
    head: Head = "logistic",
    folds: Folds = 5,
    seed: Seed = 0,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 50,
    where: o.Where = None,
    space: o.SpaceName = None,
    separator: Separator = None,
    html: Sheet = None,
    as_json: o.Json = False,
) -> None:
    """Likely label errors, the surest first: items whose label the others contradict (confident learning).

    Of several labels an item: labels that are given and should not be, and labels that lack.
    """
    opened = es.open(store)
    found = opened.suspects(label, head=head, folds=folds, seed=seed, where=where, space=space, separator=separator)
    chosen = found.issues[:top]
    uris = opened.uris([s.item for s in chosen])
    if html:
        cells = [(s.item, s.margin, s.description) for s in chosen]
        _sheet(opened, html, cells, f"labels to look at: {label}")
    if as_json:
        listed = found.to_json()
        listed["suspects"] = [s | {"uri": uris.get(s["item"])} for s in listed["suspects"][:top]]
        console.print_json(listed | {"found": len(found.issues)})
        return
    print(
        f"{len(found.issues)} of {found.n_labels} labels are doubted ({head}, {found.folds} folds, "
        f"{found.seconds:.2f} s); about {found.error_rate:.1%} are estimated to be wrong"
    )
    if found.skipped_labels:
        console.print_note(
            f"not looked at, for too few or too many items have them: {', '.join(found.skipped_labels[:20])}"
        )
    console.print_table(
        ("margin", "given", "suggested", "item", "uri"),
        [(round(s.margin, 4), s.given_label or "", s.suggested_label or "", s.item, uris.get(s.item)) for s in chosen],
    )


@app.command()
def suggest(
    store: o.StorePath,
    label: o.Label = "label",
    k: Annotated[int, typer.Option("-k", min=1, help="Items wanted.")] = 20,
    head: Head = "logistic",
    seed: Seed = 0,
    where: o.Where = None,
    space: o.SpaceName = None,
    separator: Separator = None,
    html: Sheet = None,
    as_json: o.Json = False,
) -> None:
    """What to label next: items without a label that the head is unsure of and that differ from each other."""
    opened = es.open(store)
    found = opened.suggest(label, k=k, head=head, seed=seed, where=where, space=space, separator=separator)
    uris = opened.uris([s.item for s in found.suggestions])
    if html:
        cells = [(s.item, s.confidence, f"{s.predicted}?") for s in found.suggestions]
        _sheet(opened, html, cells, f"to label next: {label}")
    if as_json:
        listed = found.to_json()
        listed["suggestions"] = [s | {"uri": uris.get(s["item"])} for s in listed["suggestions"]]
        console.print_json(listed)
        return
    print(f"{len(found.suggestions)} of {found.n_candidates:,} images without {label} ({found.seconds:.2f} s)")
    if not found.n_candidates:
        console.print_note(
            f"every image that was looked at has a {label}; add some without one, and `suggest` will choose"
        )
        return
    console.print_table(
        ("margin", "confidence", "would say", "item", "uri"),
        [
            (round(s.margin, 4), round(s.confidence, 4), s.predicted, s.item, uris.get(s.item))
            for s in found.suggestions
        ],
    )


def _sheet(store: Store, path: Path, cells: list[tuple[Any, ...]], title: str) -> None:
    """A contact sheet with a word below each picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(store.sheet(cells, title), encoding="utf-8")
    console.print_note(f"wrote {path}")
