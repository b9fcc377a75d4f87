"""New images and what a head says of them."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

from embedstore.tables import OneRow, Record, Table
from embedstore.wording import counted

FileReader = Callable[[str], bytes | None]


@dataclass(frozen=True)
class NearestItem:
    """A labeled item that is near to an image: evidence for its prediction, or against it.

    Attributes:
        item: its id.
        uri: its name.
        label: its value in the column that the head predicts.
        score: the cosine similarity.
    """

    item: int
    uri: str
    label: Any
    score: float


@dataclass(frozen=True)
class ClassifiedImage(OneRow):
    """One image and its prediction.

    Attributes:
        image: the path or uri, or ``image N`` for one in memory.
        labels: the predicted class; none if the head abstains or the image failed, several of a head that predicts
            several labels or sets of classes.
        score: the probability of the most probable class; None if the image failed.
        probabilities: the most probable classes with their probabilities, highest first.
        number: the predicted number, of a head that predicts numbers.
        interval: the interval of the number, low and high.
        evidence: the labeled items nearest to it, best first.
        failure: why it has no prediction: the reason and one line, else None.
        text: the text, of a row of a table of texts.
    """

    image: str
    labels: tuple[str, ...] = ()
    score: float | None = None
    probabilities: tuple[tuple[str, float], ...] = ()
    number: float | None = None
    interval: tuple[float, float] | None = None
    evidence: tuple[NearestItem, ...] = ()
    failure: str | None = None
    text: str | None = None

    @property
    def label(self) -> str | None:
        """The predicted class or number; several classes are joined by a semicolon, and None is "none of these"."""
        if self.number is not None:
            return f"{self.number:g}"
        return "; ".join(self.labels) or None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        text = {} if self.text is None else {"text": self.text}
        return {
            "image": self.image,
            **text,
            "labels": list(self.labels),
            "score": self.score,
            "probabilities": dict(self.probabilities),
            "number": self.number,
            "interval": list(self.interval) if self.interval else None,
            "evidence": [asdict(item) | {"score": round(item.score, 6)} for item in self.evidence],
            "failure": self.failure,
        }


@dataclass(frozen=True)
class ClassifiedImages(Table, Sequence[ClassifiedImage]):
    """Images and their predictions, in the order in which they were given.

    Attributes:
        head: the name of the head.
        images: one per image.
        seconds: wall time.
        label: the column that the head predicts.
        space: the name of the head's space.
        read_file: reads the file of an image or of an item by its uri, for pictures.
        plural: what the items are: images, texts or clips.
        notices: what a person should know about the reading, one sentence each: what was skipped or cut.
    """

    head: str
    images: tuple[ClassifiedImage, ...]
    seconds: float
    label: str
    space: str
    read_file: FileReader = field(repr=False, compare=False)
    plural: str = "images"
    notices: tuple[str, ...] = ()

    @overload
    def __getitem__(self, i: int) -> ClassifiedImage: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[ClassifiedImage]: ...
    def __getitem__(self, i: int | slice) -> ClassifiedImage | Sequence[ClassifiedImage]:
        return self.images[i]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[ClassifiedImage]:
        return iter(self.images)

    @property
    def singular(self) -> str:
        """What one item is: image, text or clip."""
        return self.plural.removesuffix("s")

    @property
    def failures(self) -> list[ClassifiedImage]:
        """The images without a prediction."""
        return [image for image in self.images if image.failure is not None]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        images = [image.to_json() for image in self.images]
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "seconds": round(self.seconds, 3),
            "notices": list(self.notices),
            "images": images,
        }

    def records(self) -> list[Record]:
        """Return one flat mapping per image; ``nearest`` is the labeled item that is most similar."""
        return [_record(image) for image in self.images]

    def html(self) -> str:
        """Return a page with every image, its most probable classes and its evidence."""
        from embedstore.reports.html_page import html_page

        title = f"{counted(len(self.images), self.singular)} by {self.head}"
        body = f"<h1>{html.escape(title)}</h1>\n{self._figures()}"
        return html_page(title, body, style=_STYLE)

    def _repr_html_(self) -> str:
        return f'<style>{_STYLE}</style><div class="classified">{self._figures()}</div>'

    def _figures(self) -> str:
        return "\n".join(_figure(image, self.read_file) for image in self.images)


def _record(image: ClassifiedImage) -> Record:
    """Return one image as a flat mapping."""
    second = image.probabilities[1] if len(image.probabilities) > 1 else (None, None)
    low, high = image.interval or (None, None)
    nearest = image.evidence[0] if image.evidence else None
    text = {} if image.text is None else {"text": image.text}
    return {
        "image": image.image,
        **text,
        "label": image.label,
        "score": image.score,
        "second_label": second[0],
        "second_score": second[1],
        "number": image.number,
        "low": low,
        "high": high,
        "nearest": nearest.uri if nearest else None,
        "nearest_label": nearest.label if nearest else None,
        "nearest_score": round(nearest.score, 6) if nearest else None,
        "failure": image.failure,
    }


def _figure(image: ClassifiedImage, read_file: FileReader) -> str:
    """Return the HTML of one image: the picture, its classes, its evidence."""
    if image.failure is not None:
        text = f"<b>{html.escape(Path(image.image).name)}</b><br>{html.escape(image.failure)}"
        return f'<section><div class="facts">{text}</div></section>'
    classes = "".join(
        f"<tr><td>{html.escape(name)}</td><td><meter value='{p:.4f}'></meter></td><td>{p:.3f}</td></tr>"
        for name, p in image.probabilities
    )
    evidence = "".join(
        f"<figure>{_picture(item.uri, read_file)}<figcaption>{html.escape(str(item.label))} {item.score:.3f}"
        "</figcaption></figure>"
        for item in image.evidence
    )
    label = html.escape(image.label or "none of these")
    if image.interval:
        label += " [{:g}, {:g}]".format(*image.interval)
    return (
        f"<section>{_picture(image.image, read_file)}<div class='facts'><b>{label}</b><br>"
        f"<small>{html.escape(image.image)}</small><table>{classes}</table></div>{evidence}</section>"
    )


def _picture(uri: str, read_file: FileReader) -> str:
    """Return the HTML of a thumbnail, a text or a player of sound."""
    from embedstore.reports.contact_sheet import item_html  # it imports Pillow

    return item_html(read_file(uri), html.escape(Path(uri).name))


_STYLE = """
body{margin:24px;font:14px/1.4 system-ui,sans-serif} h1{font:600 20px system-ui,sans-serif}
section{display:flex;gap:14px;align-items:center;padding:10px 0;border-top:1px solid #ccc}
section img{width:150px;height:150px;object-fit:contain;background:#f2f2f2;border-radius:4px}
section audio{width:230px} section blockquote{margin:0;padding:8px;width:230px;background:#f2f2f2;border-radius:4px;
overflow-wrap:anywhere;font-size:12px} figure blockquote,figure audio{width:160px}
figure{margin:0} figure img{width:96px;height:96px} figcaption{font-size:12px} .facts{min-width:260px}
small{color:#666;overflow-wrap:anywhere} td{padding-right:8px}
@media (prefers-color-scheme:dark){body{background:#181818;color:#eee}
section img,section blockquote{background:#2a2a2a}
small{color:#aaa}}
"""
