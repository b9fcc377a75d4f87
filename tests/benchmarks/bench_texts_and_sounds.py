"""Accuracy of frozen vectors of real texts and sounds: ``python -m tests.benchmarks.bench_texts_and_sounds``.

Ten topics of WordNet, 60 glosses each, by MiniLM with two poolings, and spoken prompts of Debian's asterisk, 60 in
English and their 60 translations into French, by the encoder of Whisper tiny.en: a logistic probe over five folds, with
no prompt on two sides. The weights are those of the shared data ($EMBEDSTORE_SHARED_DATA).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import embedstore as es
from tests.helpers.labelled_sets import NOUNS, PROMPTS, write_glosses, write_prompts

MODELS = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "../shared/data")) / "models"
WHISPER = "whisper-tiny-en-encoder"
PROMPTS_OF_A_LANGUAGE = 60


def probe_of(table: Path, store: Path, label: str, backbone: str, embed: dict[str, Any], **options: Any) -> str:
    """Embed a table, and return the accuracy of a probe with its interval."""
    with es.create(store, backbone, device="cpu", **options) as opened:
        report = opened.embed(table, progress=False, **embed)
        accuracy = opened.probe(label, folds=5).report.scores["accuracy"]
    rows = report.embedded + report.reused
    return f"{rows:>5} {accuracy.value:>9.3f}   {accuracy.low:.3f} to {accuracy.high:.3f}"


def main() -> None:
    """Print one line per network and pooling."""
    print(f"{'':<44} {'items':>5} {'accuracy':>9}   95% interval")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if NOUNS.is_file():
            table, model = write_glosses(folder / "glosses.csv"), f"hf/{MODELS / 'all-MiniLM-L6-v2'}"
            for pool in ("mean", "cls"):
                line = probe_of(table, folder / pool, "topic", model, {"text_column": "gloss"}, pool=pool)
                print(f"{f'WordNet, ten topics, MiniLM, {pool}':<44} {line}", flush=True)
        if PROMPTS.is_dir():
            table, whisper = (
                write_prompts(folder / "prompts.csv", PROMPTS_OF_A_LANGUAGE),
                MODELS / "whisper-tiny-en-encoder",
            )
            weights = whisper / "encoder.safetensors"
            line = probe_of(table, folder / "whisper", "label", f"hf/{whisper}", {}, weights=weights)
            print(f"{'English or French prompts, Whisper tiny.en':<44} {line}")


if __name__ == "__main__":
    main()
