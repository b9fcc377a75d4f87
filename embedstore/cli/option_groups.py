"""Options that travel together: a dataclass of them stands as one parameter of a verb."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

import typer

from embedstore.cli import options as o

if TYPE_CHECKING:
    from embedstore.operations.evaluate import HowOptions

Verb = TypeVar("Verb", bound=Callable[..., None])

Head = Annotated[str, typer.Option(help="logistic, knn, prototype, lda, svm, ridge, mlp.")]
Folds = Annotated[int, typer.Option(help="Cross-validate over all items instead of the split.")]
Seed = Annotated[int, typer.Option(help="Of the hashed split, the folds and the heads.")]
HeadArg = Annotated[list[str], typer.Option("--head-arg", metavar="K=V", help="Option of the head: k=20, Cs=[10].")]
Save = Annotated[str | None, typer.Option(help="Keep the fitted head under this name, for `predict`.")]
Separator = Annotated[str | None, typer.Option(help="Cut the label's text here: several labels an item.")]
Html = Annotated[Path | None, typer.Option(help="Write the report as one self-contained HTML page.")]
Png = Annotated[Path | None, typer.Option(help="Write the confusion matrix (or the curve) as PNG; needs [viz].")]


@dataclass(frozen=True)
class ItemOptionGroup:
    """Of which items, in which space."""

    where: o.Where = None
    space: o.SpaceName = None


@dataclass(frozen=True)
class EvaluationOptionGroup:
    """How a head is judged."""

    folds: Folds = 0
    seed: Seed = 0
    near_duplicate_threshold: Annotated[
        float | None,
        typer.Option(
            help="Cosine from which a training and a held-out item count as near-duplicates (default 0.95, without "
            "very long searches); 0 does not search."
        ),
    ] = None
    drop_near_duplicates: Annotated[
        bool, typer.Option("--drop-near-duplicates", help="Leave near-duplicates of held-out items out of training.")
    ] = False
    calibrate: Annotated[str | None, typer.Option(help="Calibrate the probabilities: temperature or isotonic.")] = None
    abstain_precision: Annotated[
        float | None,
        typer.Option(help='Answer "none of these" below a threshold that is chosen for this precision, in (0, 1].'),
    ] = None
    conformal_alpha: Annotated[
        float | None,
        typer.Option(
            help="Answer with sets of classes; at most this share of the sets may miss the true class, in (0, 0.5]."
        ),
    ] = None

    def to_kwargs(self) -> HowOptions:
        """As the Python face takes them."""
        return cast("HowOptions", asdict(self))


@dataclass(frozen=True)
class TextClassOptionGroup:
    """Classes in words, and what encodes them."""

    classes: Annotated[
        str | None,
        typer.Option(help="Class names with commas between, or a file with one a line; by default the labels."),
    ] = None
    prompts: Annotated[Path | None, typer.Option(help="JSON: {class: prompt or [prompts]}.")] = None
    templates: Annotated[
        str, typer.Option(help="Sentences around a name: photo, name, simple, imagenet, or a file with one {} a line.")
    ] = "photo"
    class_vectors: Annotated[
        Path | None, typer.Option(help=".npy (K, D): the classes' text vectors, made elsewhere.")
    ] = None
    device: o.Device = "auto"
    precision: o.Precision = "auto"

    def load_classes(self) -> Any:
        """Names, or prompts by class; None where neither is given."""
        if self.prompts:
            return _prompts(self.prompts)
        if not self.classes:
            return None
        if "," not in self.classes and Path(self.classes).is_file():
            return _lines(Path(self.classes))
        return [c.strip() for c in self.classes.split(",") if c.strip()]

    def load_templates(self) -> str | list[str]:
        """The name of a set, or the lines of a file."""
        return _lines(Path(self.templates)) if Path(self.templates).is_file() else self.templates

    def load_class_vectors(self) -> Any:
        """The array of the .npy file, None without one."""
        if self.class_vectors is None:
            return None
        import numpy as np

        try:
            return np.load(self.class_vectors, allow_pickle=False)
        except (OSError, ValueError) as e:
            raise typer.BadParameter(f"{self.class_vectors} is not a .npy file of numbers: {e}") from e


@dataclass(frozen=True)
class OutputOptionGroup:
    """The forms of an answer."""

    html: Html = None
    png: Png = None
    as_json: o.Json = False


def with_option_groups(command: Verb) -> Verb:
    """A verb whose parameters of the classes above become one option for each of their fields.

    typer reads a verb's signature; this writes it.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    bundles = {
        p.name: hints[p.name]
        for p in own
        if hints[p.name] in (ItemOptionGroup, EvaluationOptionGroup, TextClassOptionGroup, OutputOptionGroup)
    }
    flat = [q for p in own for q in (_options(bundles[p.name]) if p.name in bundles else [_plain(p, hints)])]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        made = {name: cls(**{f.name: given.pop(f.name) for f in fields(cls)}) for name, cls in bundles.items()}
        command(**given, **made)

    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in flat}
    del call.__dict__["__wrapped__"]  # or the old signature would be found behind it
    return cast("Verb", call)


def _plain(parameter: inspect.Parameter, hints: dict[str, Any]) -> inspect.Parameter:
    return parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)


def _options(cls: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(cls, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
        for f in fields(cls)
    ]


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _prompts(path: Path) -> dict[str, Any]:
    """A prompt file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise typer.BadParameter(f"{path} is not a JSON file of prompts by class: {e}") from e
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} is not a JSON object of prompts by class")
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a text file that say something."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
