"""Small stores of texts and of sounds, by networks with random weights."""

from __future__ import annotations

import csv
from pathlib import Path

import embedstore as es
from tests.helpers.sound_models import save_sound_model, sound_file, tone
from tests.helpers.text_models import save_model

TEXTS = (
    "The dog runs on the beach.\nIt is a big dog.",
    "A cat sleeps <b>in</b> the house, & the sun shines.",
    "The stock market fell.",
    "The stock market rose. " * 40,
)
PITCHES = (220, 440, 880)
SECONDS = 0.5


def text_store(folder: Path) -> Path:
    """Return a store of the rows of a table, one text each."""
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows([text, "animal" if n < 2 else "money"] for n, text in enumerate(TEXTS))
    with es.create(folder / "notes.store", f"hf/{save_model(folder / 'bert', 'bert')}", device="cpu") as store:
        store.embed(folder / "notes.csv", text_column="text")
    return folder / "notes.store"


def sound_store(folder: Path) -> Path:
    """Return a store of tones, the first of which is a FLAC file."""
    clips = folder / "clips"
    clips.mkdir()
    for pitch in PITCHES:
        kind = "FLAC" if pitch == PITCHES[0] else "WAV"
        (clips / f"{pitch}.{kind.lower()}").write_bytes(sound_file(tone(SECONDS, pitch=pitch), kind=kind))
    with es.create(
        folder / "clips.store", f"hf/{save_sound_model(folder / 'hubert', 'hubert')}", device="cpu"
    ) as store:
        store.embed(clips)
    return folder / "clips.store"
