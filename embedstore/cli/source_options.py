"""The options that say where images are and how they are read, alike in every verb that reads a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from embedstore.cli import options as o

UriColumn = Annotated[
    str | None, typer.Option(help="The column of the manifest or table that names the images; by default uri.")
]


@dataclass(frozen=True)
class TableOptionGroup(o.OptionGroup):
    """How a table is read."""

    text_column: o.TextColumn = None
    uri_column: UriColumn = None
    root: o.Root = None
    encoding: o.Encoding = None

    @property
    def are_given(self) -> bool:
        """The user gave at least one of them."""
        return self != TableOptionGroup()


@dataclass(frozen=True)
class SourceOptionGroup(o.OptionGroup):
    """Where images are, and what is taken from there."""

    annotations: Annotated[
        list[str],
        typer.Option(
            metavar="PATH",
            help="Embed the photos that annotations list, with their classes and captions: a JSON file of COCO, the "
            "samples.json of FiftyOne, the data.yaml of YOLO, a folder of Pascal VOC, or a metadata.csv. Repeatable.",
        ),
    ] = field(default_factory=list)
    crops: Annotated[
        bool, typer.Option("--crops", help="Embed every box of the annotations in place of the photos.")
    ] = False
    labels_from: Annotated[
        str, typer.Option(help="Where labels come from: folder (the parent folder's name) or none.")
    ] = "folder"
    splits_from: Annotated[
        str, typer.Option(help="Where splits come from: folder (one named train, val or test) or none.")
    ] = "folder"
    exclude: Annotated[
        list[str],
        typer.Option(
            metavar="GLOB",
            help="Skip files and folders of this name, or with / of this path in the folder, e.g. 'raw'. Repeatable.",
        ),
    ] = field(default_factory=list)
    hidden: Annotated[bool, typer.Option("--hidden", help="Embed hidden files and folders too.")] = False
    raw_pairs: Annotated[
        str,
        typer.Option(
            help="What to embed where a RAW file and a JPEG or HEIC file have the same name: photo (the JPEG or "
            "HEIC file) or both."
        ),
    ] = "photo"
    pages: Annotated[bool, typer.Option("--pages", help="Embed the pages of PDF files, also those in folders.")] = False
    every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Seconds between the frames of a video that are embedded, also for videos in folders. By "
            "default 5 for a video that SOURCE names.",
        ),
    ] = None
    key_frames: Annotated[bool, typer.Option("--key-frames", help="Embed the key frames of each video.")] = False
    uri_column: UriColumn = None
    text_column: o.TextColumn = None
    root: o.Root = None
    encoding: o.Encoding = None
    collect_rows: Annotated[
        bool,
        typer.Option(
            "--collect-rows",
            help="Make one item of several rows of an image; columns whose values differ become lists.",
        ),
    ] = False

    def to_kwargs(self) -> dict[str, Any]:
        """Return the options as keyword arguments; ``none`` is None."""
        given = super().to_kwargs()
        for name in ("labels_from", "splits_from"):
            given[name] = None if given[name] == "none" else given[name]
        return given
