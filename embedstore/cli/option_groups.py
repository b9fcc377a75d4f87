"""Groups of options: a dataclass of options is one parameter of a verb."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

import typer

from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.errors import SourceError

if TYPE_CHECKING:
    from embedstore.store import Store

Verb = TypeVar("Verb", bound=Callable[..., None])

Head = Annotated[str, typer.Option(help="The head: logistic, knn, prototype, lda, svm, ridge, mlp or kernel.")]
ProbeHead = Annotated[
    str | None,
    typer.Option(
        "--head",
        help="The head: logistic, knn, prototype, lda, svm, ridge, mlp or kernel; for numbers ridge or knn. By default "
        "logistic, for numbers ridge.",
    ),
]
TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        help="What is predicted: classification, regression (a number), ordinal (a few numbers in order) or "
        "auto. auto takes numbers with a fraction, and many different whole numbers, as a regression.",
    ),
]
Weight = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="A column with the weight of each item in training, at least 0; 2 counts twice."
    ),
]
WeightedMetrics = Annotated[
    bool,
    typer.Option(
        "--weighted-metrics",
        help="Also report the metrics (accuracy, mean recall and losses; errors for numbers) weighted by "
        "--weight over the held-out items.",
    ),
]
Folds = Annotated[int, typer.Option(help="Cross-validate over all items with this many folds; 0 uses the split.")]
HeadArg = Annotated[
    list[str],
    typer.Option("--head-arg", metavar="K=V", help="Pass an option to the head, such as k=20 or C=10. Repeatable."),
]
SaveAs = Annotated[
    str | None, typer.Option("--save", metavar="HEAD", help="Save the fitted head under this name, for `predict`.")
]
ProbeProtocol = Annotated[
    str | None,
    typer.Option(
        help="Evaluate as a publication does: clip, dinov2, dinov3, vtab1k, mteb, hear or superb. It fixes the values "
        "of C, who selects C, and the refit; mteb draws eight labels per class ten times; hear and superb train small "
        "networks."
    ),
]
KnnProtocol = Annotated[
    str | None,
    typer.Option(help="Evaluate as a publication does: dinov2 or dinov3, with 10, 20, 100 and 200 neighbors at once."),
]
Separator = Annotated[str | None, typer.Option(help="The text that separates several labels of an item, e.g. a comma.")]

NearDuplicates = Annotated[
    str,
    typer.Option(
        help="What to do with near-duplicates: group (keep them on one side of every split and fold), ignore, "
        "or drop (group, and do not train on those of held-out items)."
    ),
]
NearDuplicateThreshold = Annotated[
    float | None,
    typer.Option(
        help="Cosine from which two items are near-duplicates. By default it is chosen from the vectors; 0 is ignore."
    ),
]


@dataclass(frozen=True)
class ItemOptionGroup:
    """The items to use, and the space of their vectors."""

    where: o.Where = None
    space: o.SpaceName = None


@dataclass(frozen=True)
class EvaluationOptionGroup(o.OptionGroup):
    """Options of an evaluation."""

    folds: Folds = 0
    seed: o.Seed = 0
    near_duplicates: NearDuplicates = "group"
    near_duplicate_threshold: NearDuplicateThreshold = None
    drop_near_duplicates: Annotated[
        bool,
        typer.Option(
            "--drop-near-duplicates",
            help="Do not train on near-duplicates of held-out items; the same as --near-duplicates drop.",
        ),
    ] = False
    calibrate: Annotated[str | None, typer.Option(help="Calibrate the probabilities: temperature or isotonic.")] = None
    abstain_precision: Annotated[
        float | None,
        typer.Option(
            help="Abstain below a confidence, chosen so that answers to new items reach this precision, e.g. 0.95."
        ),
    ] = None
    conformal_alpha: Annotated[
        float | None,
        typer.Option(
            help="Predict a set of classes per item; at most this share of the sets may miss the true class, e.g. 0.1."
        ),
    ] = None
    conformal_by_class: Annotated[
        bool, typer.Option("--conformal-by-class", help="Keep the share of --conformal-alpha within every class.")
    ] = False
    choose_on: Annotated[
        str, typer.Option(help="Select C of logistic regression on folds of the training items, or on the val items.")
    ] = "folds"
    refit: Annotated[
        bool, typer.Option("--refit", help="Train on the val items, too, after everything is selected.")
    ] = False

    label_thresholds: Annotated[
        str,
        typer.Option(
            help="With several labels per item, the probability from which a label is predicted: half (0.5) or "
            "chosen (the threshold with the highest F1 on val items or out of fold)."
        ),
    ] = "half"

    @property
    def near_duplicate_policy(self) -> str:
        """What is done with near-duplicates."""
        return "drop" if self.drop_near_duplicates else self.near_duplicates


@dataclass(frozen=True)
class TextClassOptionGroup:
    """Classes as text, and the device that encodes them."""

    classes: Annotated[
        str | None,
        typer.Option(help="Class names separated by commas, or a text file with one per line; by default the labels."),
    ] = None
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON file {class: prompt or [prompts]} instead of names.")
    ] = None
    templates: Annotated[
        str,
        typer.Option(help="Sentences around a name: photo, name, simple, imagenet, or a file with one {} per line."),
    ] = "photo"
    class_vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .npy file (K, D) of text vectors that were computed elsewhere."),
    ] = None
    encoding: o.Encoding = None
    device: o.Device = "auto"
    precision: o.Precision = "auto"

    def load_classes(self) -> Any:
        """Return class names or prompts by class, None if neither is given."""
        if self.prompts:
            return _read_prompts(self.prompts, self.encoding)
        if not self.classes:
            return None
        return _read_lines(self.classes, "--classes", self.encoding) or o.parse_names(self.classes)

    def to_kwargs(self) -> dict[str, Any]:
        """Return keyword arguments of :meth:`embedstore.Store.zero_shot`."""
        templates = _read_lines(self.templates, "--templates", self.encoding) or self.templates
        return {"templates": templates, "class_vectors": load_vectors(self.class_vectors, "--class-vectors")}


@dataclass(frozen=True)
class NameOptionGroup:
    """Print names alone, for other programs."""

    uris: Annotated[bool, typer.Option("--uris", help="Print the uris alone, one per line, for pipes.")] = False
    paths: Annotated[
        bool, typer.Option("--paths", help="Print the paths of the files alone, exactly as the system opens them.")
    ] = False
    null: Annotated[
        bool, typer.Option("-0", "--null", help="End each uri or path with a NUL character, for `xargs -0`.")
    ] = False

    def check(self) -> None:
        """Refuse -0 without names.

        Raises:
            typer.BadParameter: if the names are not requested, or both kinds are.
        """
        if self.uris and self.paths:
            raise typer.BadParameter("give one of --uris and --paths")
        if self.null and not (self.uris or self.paths):
            raise typer.BadParameter("-0 ends uris or paths: give --paths -0 or --uris -0")

    def print_names(self, store: Store, items: Sequence[int]) -> bool:
        """Print the names of items if they are requested, and return whether they are."""
        if self.paths:
            paths = store.item_paths(items)
            console.print_paths((paths[i] for i in items if i in paths), null=self.null)
        elif self.uris:
            uris = store.item_uris(items)
            console.print_uris((uris[i] for i in items if i in uris), null=self.null)
        return self.uris or self.paths


@dataclass(frozen=True)
class NearDuplicateOptionGroup(o.OptionGroup):
    """Options of near-duplicates."""

    near_duplicates: NearDuplicates = "group"
    near_duplicate_threshold: NearDuplicateThreshold = None


@dataclass(frozen=True)
class SliceOptionGroup(o.OptionGroup):
    """Options of slices."""

    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Also report the figures by the values of this column, and the gaps."),
    ] = None
    by_metric: Annotated[
        str, typer.Option(help="The figure that ranks the values of --by: accuracy or mean_per_class_recall.")
    ] = "accuracy"


def with_option_groups(command: Verb) -> Verb:
    """Return a verb whose option groups are expanded into one option per field, in the signature that Typer reads."""
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    groups = {p.name: hints[p.name] for p in own if is_dataclass(hints[p.name])}
    flat = [q for p in own for q in (_options(groups[p.name]) if p.name in groups else [_keyword_only(p, hints)])]

    @functools.wraps(command)
    def call(**values: Any) -> None:
        grouped = {name: cls(**{f.name: values.pop(f.name) for f in fields(cls)}) for name, cls in groups.items()}
        command(**values, **grouped)

    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in flat}
    del call.__dict__["__wrapped__"]  # otherwise typer finds the old signature behind it
    return cast("Verb", call)


def _keyword_only(parameter: inspect.Parameter, hints: dict[str, Any]) -> inspect.Parameter:
    return parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)


def _options(cls: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(cls, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
        for f in fields(cls)
    ]


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def load_vectors(path: Path | None, option: str) -> Any:
    """Return the array of a .npy file, None without one.

    Raises:
        typer.BadParameter: if the file is not one of numbers.
    """
    if path is None:
        return None
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        why = "" if "pickle" in str(e) else f": {e}"  # NumPy's advice is to load what may run code
        raise typer.BadParameter(f"{path} is not a .npy file of numbers{why}", param_hint=option) from e


def _read_prompts(path: Path, encoding: str | None) -> dict[str, Any]:
    """Read a prompt file."""
    from embedstore.sources import text_files

    try:
        prompts = json.loads("".join(text_files.decoded_chunks(str(path), encoding=encoding)))
    except (SourceError, ValueError) as e:
        raise typer.BadParameter(f"{path} is not a JSON file of prompts by class: {e}", param_hint="--prompts") from e
    if not isinstance(prompts, dict):
        raise typer.BadParameter(f"{path} is not a JSON object of prompts by class", param_hint="--prompts")
    return prompts


def _read_lines(text: str, option: str, encoding: str | None) -> list[str] | None:
    """Return the lines of a text file that are not blank; None if the text is not the path of a file."""
    if not os.path.isfile(text):  # noqa: PTH113 - Path.is_file raises for a sentence that is too long for a path
        return None
    from embedstore.sources import text_files

    try:
        lines = text_files.read_lines(text, encoding=encoding)
    except SourceError as e:
        raise typer.BadParameter(str(e), param_hint=option) from e
    if lines:
        return lines
    raise typer.BadParameter(f"{text} has no lines", param_hint=option)
