"""Accuracy of frozen vectors of real texts and sounds: ``python -m tests.benchmarks.bench_texts_and_sounds``.

Ten topics of WordNet (files of its lexicographers), 60 glosses each, by MiniLM with two poolings, for ten draws of the
glosses without a common one: which glosses are drawn moves the accuracy by several hundredths. Then the first 60
glosses of each of the ten largest files. Spoken prompts of
Debian's asterisk, 60 in English and their 60 translations into French, by the encoder of Whisper tiny.en, with no
prompt on two sides. Each figure is a logistic probe over five folds, on glosses also with scikit-learn's default of C.
The weights are those of the shared data ($EMBEDSTORE_SHARED_DATA).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import embedstore as es
from tests.helpers.labelled_sets import NOUNS, PROMPTS, write_first_glosses, write_glosses, write_prompts

MODELS = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "../shared/data")) / "models"
MINILM, WHISPER = MODELS / "all-MiniLM-L6-v2", MODELS / "whisper-tiny-en-encoder"
DRAWS = 10
HEADS: dict[str, dict[str, float]] = {"chosen": {}, "1": {"C": 1.0}}
PROMPTS_OF_A_LANGUAGE = 60


def print_glosses(folder: Path, pool: str) -> None:
    """Print the accuracies of probes on ten draws of glosses: mean, standard deviation, least and largest."""
    table = write_glosses(folder / "glosses.csv", DRAWS)
    with es.create(folder / pool, f"hf/{MINILM}", device="cpu", pool=pool) as store:
        store.embed(table, text_column="gloss", progress=False)
        for choice, options in HEADS.items():
            probes = [store.probe("topic", folds=5, where=f"draw = {n}", head_options=options) for n in range(DRAWS)]
            values = [probe.report.scores["accuracy"].value for probe in probes]
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            print(
                f"ten topics of WordNet, MiniLM, {pool}, C {choice}: {mean:.3f}, standard deviation {deviation:.3f}, "
                f"draws from {min(values):.3f} to {max(values):.3f}",
                flush=True,
            )


def print_first_glosses(folder: Path, pool: str) -> None:
    """Print the accuracy of the default probe on the first glosses of the largest files."""
    table = write_first_glosses(folder / "first.csv")
    with es.create(folder / f"first-{pool}", f"hf/{MINILM}", device="cpu", pool=pool) as store:
        store.embed(table, text_column="gloss", progress=False)
        accuracy = store.probe("topic", folds=5).report.scores["accuracy"]
    print(
        f"first glosses of the ten largest files, MiniLM, {pool}: {accuracy.value:.3f}, "
        f"interval {accuracy.low:.3f} to {accuracy.high:.3f}",
        flush=True,
    )


def prompts_line(folder: Path) -> str:
    """Return the accuracy of a probe on prompts, with its interval."""
    table = write_prompts(folder / "prompts.csv", PROMPTS_OF_A_LANGUAGE)
    with es.create(folder / "whisper", f"hf/{WHISPER}", device="cpu", weights=WHISPER / "encoder.safetensors") as store:
        store.embed(table, progress=False)
        accuracy = store.probe("label", folds=5).report.scores["accuracy"]
    return f"{accuracy.value:.3f}, interval {accuracy.low:.3f} to {accuracy.high:.3f}"


def main() -> None:
    """Print one line per network, pooling and choice of C."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if NOUNS.is_file():
            for pool in ("mean", "cls"):
                print_glosses(folder, pool)
                print_first_glosses(folder, pool)
        if PROMPTS.is_dir():
            print(f"English or French prompts, Whisper tiny.en: {prompts_line(folder)}")


if __name__ == "__main__":
    main()
