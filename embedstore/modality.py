"""What a backbone reads - images, texts or sound - and the facts about its input that change the numbers of a vector.

What a network of images reads is its :class:`~embedstore.space.Preprocess`; this module has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

MAX_TOKENS = 1 << 20  # of a text, and samples per second of a sound: a description from somebody else
MAX_SAMPLE_RATE = 1 << 20  # must not claim more memory than any network needs


TEXT_FORMAT = "TEXT"  # in the column ``format`` of the table ``contents``, like the names of formats of sound
SOUND_FORMATS = tuple("WAV WAVEX RF64 W64 FLAC OGG MP3 AIFF AU CAF".split())


class Modality(StrEnum):
    """What a backbone reads. A store may hold items of several; a space belongs to one."""

    IMAGE = "image"
    TEXT = "text"
    AUDIO = "audio"

    @property
    def plural(self) -> str:
        """What messages call several items."""
        return {Modality.IMAGE: "images", Modality.TEXT: "texts", Modality.AUDIO: "clips"}[self]

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of its contents; none for images, which have every other format, or an unknown one."""
        return {Modality.IMAGE: (), Modality.TEXT: (TEXT_FORMAT,), Modality.AUDIO: SOUND_FORMATS}[self]


def modality_of(content_format: str | None) -> Modality:
    """Return the modality of a content of a format; one of unknown format is an image."""
    return next((modality for modality in Modality if content_format in modality.formats), Modality.IMAGE)


class LongText(StrEnum):
    """What is read of a text that has more tokens than the network takes at once."""

    CUT = "cut"  # its beginning
    WINDOWS = "windows"  # all of it, in windows; the vector is the mean of theirs, weighted by their tokens


@dataclass(frozen=True)
class TextInput:
    """How a text becomes the network's input.

    Attributes:
        tokenizer: the digest of the tokenizer, ``sha256:…``.
        max_length: tokens that the network reads at once, special tokens included.
        long: what is read of a longer text.
        prompt: text put before the text of an item.
        query_prompt: text put before a query.
        lowercase: the text is changed to lower case first.
    """

    tokenizer: str
    max_length: int
    long: LongText = LongText.CUT
    prompt: str = ""
    query_prompt: str = ""
    lowercase: bool = False

    @property
    def modality(self) -> Modality:
        """What is read."""
        return Modality.TEXT

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TextInput:
        """Return what :func:`input_facts` stored; it may be from somebody else.

        Raises:
            ValueError: if a value is out of its bounds.
            TypeError: if a value is missing, unknown or of another type.
        """
        stored = cls(**{**values, "long": LongText(values.get("long", ""))})
        _require_types(stored, str, "tokenizer prompt query_prompt")
        _require_types(stored, int, "max_length")
        _require_types(stored, bool, "lowercase")
        if not 0 < stored.max_length <= MAX_TOKENS:
            raise ValueError(f"texts of {stored.max_length} tokens")
        return stored


@dataclass(frozen=True)
class AudioInput:
    """How a sound becomes the network's input.

    Attributes:
        extractor: the digest of the feature extractor's settings, ``sha256:…``.
        sample_rate: samples per second, one channel.
        window: seconds that the network reads at once; a longer sound is read in windows, and the vector is the mean of
            theirs, weighted by their seconds.
        hop: seconds from the begin of one window to that of the next.
    """

    extractor: str
    sample_rate: int
    window: float
    hop: float

    @property
    def modality(self) -> Modality:
        """What is read."""
        return Modality.AUDIO

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AudioInput:
        """Return what :func:`input_facts` stored; it may be from somebody else.

        Raises:
            ValueError: if a value is out of its bounds.
            TypeError: if a value is missing, unknown or of another type.
        """
        stored = cls(**values)
        _require_types(stored, str, "extractor")
        _require_types(stored, int, "sample_rate")
        _require_types(stored, float, "window hop")
        if not 0 < stored.sample_rate <= MAX_SAMPLE_RATE or not 0 < stored.hop <= stored.window <= MAX_TOKENS:
            raise ValueError(f"sound of {stored.sample_rate} Hz in windows of {stored.window} s every {stored.hop} s")
        return stored


SequenceInput = TextInput | AudioInput


def input_facts(value: SequenceInput) -> dict[str, Any]:
    """Return plain values that name the modality."""
    return {"modality": value.modality.value, **asdict(value)}


def parse_input(facts: object) -> SequenceInput:
    """Return what :func:`input_facts` stored; it may be from somebody else.

    Raises:
        ValueError: if the modality is unknown or a value is out of its bounds.
        TypeError: if a value is missing, unknown or of another type.
    """
    if not isinstance(facts, dict):
        raise TypeError(f"the input {facts!r:.40} is no object")
    values = dict(facts)
    match values.pop("modality", None):
        case Modality.TEXT.value:
            return TextInput.from_json(values)
        case Modality.AUDIO.value:
            return AudioInput.from_json(values)
        case other:
            raise ValueError(f"the modality {other!r:.40}")


def _require_types(value: object, kind: type, names: str) -> None:
    """Require that attributes have a type; a bool is no number."""
    for name in names.split():
        if type(getattr(value, name)) is not kind:
            raise TypeError(f"{name} is {getattr(value, name)!r:.40}")
