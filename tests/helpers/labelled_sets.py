"""Real labelled texts and sounds of Debian packages, as tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

NOUNS = Path("/usr/share/wordnet/data.noun")  # of the package wordnet-base
TOPICS = {  # numbers of WordNet's files of nouns (lexnames(5))
    "noun.animal": "05", "noun.artifact": "06", "noun.body": "08", "noun.food": "13", "noun.location": "15",
    "noun.person": "18", "noun.plant": "20", "noun.substance": "27", "noun.time": "28", "noun.communication": "10",
}  # fmt: skip
GLOSSES = 60  # of each topic

PROMPTS = Path("/usr/share/asterisk/sounds")  # of the packages asterisk-core-sounds-en-wav and -fr-wav
VOICES: Mapping[str, str] = {"en": "en_US_f_Allison", "fr": "fr_CA_f_June"}


def _glosses() -> dict[str, list[str]]:
    """Return the distinct first glosses of the nouns by the number of their file, in the order of WordNet."""
    found: dict[str, dict[str, None]] = {}
    for line in NOUNS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            gloss = line.split(" | ", 1)[1].split(";")[0].strip()
            found.setdefault(line.split(" ", 2)[1], {})[gloss] = None
    return {number: list(glosses) for number, glosses in found.items()}


def _write_rows(path: Path, rows: Iterable[tuple[str, str, int]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(["gloss", "topic", "draw"])
        written.writerows(rows)
    return path


def write_glosses(path: Path, draws: int = 1) -> Path:
    """Write a table of the glosses of ten topics, drawn at random, and return its path.

    Args:
        path: of the table.
        draws: how many times 60 glosses of each topic are drawn, none of them twice; the column ``draw`` counts them.

    Raises:
        FileNotFoundError: if WordNet is not installed.
    """
    found = _glosses()
    rows: list[tuple[str, str, int]] = []
    for topic, number in TOPICS.items():
        texts = sorted(found[number])
        chosen = np.random.default_rng(0).choice(len(texts), GLOSSES * draws, replace=False)
        rows += [(texts[n], topic, at // GLOSSES) for at, n in enumerate(chosen)]
    return _write_rows(path, rows)


def write_first_glosses(path: Path) -> Path:
    """Write a table of the first 60 glosses of each of the ten files with the most, and return its path.

    Args:
        path: of the table, with the numbers of the files as topics.

    Raises:
        FileNotFoundError: if WordNet is not installed.
    """
    found = _glosses()
    largest = sorted(found, key=lambda number: (-len(found[number]), number))[:10]
    return _write_rows(path, ((gloss, number, 0) for number in largest for gloss in found[number][:GLOSSES]))


def write_prompts(path: Path, count: int) -> Path:
    """Write a table of spoken prompts in English and French, and return its path.

    A prompt and its translation are one group, so that both are on one side of a fold.

    Args:
        path: of the table.
        count: of each language.

    Raises:
        FileNotFoundError: if the prompts are not installed.
    """
    names = [{file.name for file in (PROMPTS / voice).iterdir() if file.suffix == ".wav"} for voice in VOICES.values()]
    chosen = np.random.default_rng(0).permutation(sorted(set.intersection(*names)))[:count]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "label", "group"])
        rows.writerows(
            (PROMPTS / voice / name, language, name) for language, voice in VOICES.items() for name in chosen
        )
    return path
