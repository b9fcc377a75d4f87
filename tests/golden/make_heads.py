"""Make one stored head of each kind: ``python -m tests.golden.make_heads FOLDER``. A published head is never remade."""

import sys
from pathlib import Path

import numpy as np

from embedstore.classify import heads

CLASSES = ["ant", "bee", "wasp"]
SPACE = "golden"


def training_rows():
    """Return 60 rows of 12 features, their labels, and four yes-or-no labels for each row."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(3), 20)
    X = (np.eye(3, 12)[codes] * 2 + rng.standard_normal((60, 12))).astype(np.float32)
    y = np.array(CLASSES)[codes]
    return X, y, np.stack([y == "ant", y != "wasp", X[:, 5] > 0, np.ones(60, bool)], axis=1).astype(np.int64)


def fitted_heads():
    """Return a fitted head of every kind that can be stored, by the name of its folder."""
    X, y, Y = training_rows()
    text = np.eye(3, 12, dtype=np.float32)
    probe = heads.LogisticProbe([0.01, 0.1, 1.0]).fit(X, y)
    labels = heads.OneVsRest("logistic", {"Cs": [1.0]}, ["ant", "insect", "five", "all"]).fit(X, Y)
    binary = heads.LogisticProbe([0.01, 0.1, 1.0], scale="standard", criterion="accuracy").fit(X[:40], y[:40])
    options = {"mlp": {"hidden": 16}}
    return {name: heads.make_head(name, **options.get(name, {})).fit(X, y) for name in heads.HEAD_NAMES} | {
        "logistic-binary": binary,
        "logistic-plain": probe.estimator_,
        "calibrated-temperature": heads.CalibratedHead(probe).fit(X, y),
        "calibrated-isotonic": heads.CalibratedHead(probe, "isotonic").fit(X, y),
        "abstain": heads.SelectiveClassifier(heads.CalibratedHead(probe).fit(X, y), 0.9, "no idea").fit(X, y),
        "conformal": heads.ConformalSets(probe).fit(X, y),
        "zero-shot": heads.ZeroShotHead(text, np.array(CLASSES)),
        "tip-adapter": heads.TipAdapter(text, np.array(CLASSES), fine_tune=True).fit(X, y),
        "prompt-blend": heads.PromptBlend(text, np.array(CLASSES)).fit(X, y),
        "one-vs-rest": labels,
        "one-vs-rest-calibrated": heads.CalibratedHead(labels, "isotonic").fit(X, Y),
        "one-vs-rest-exclusive": heads.OneVsRest("ridge").fit(X, y),
    }


def main(folder: Path) -> None:
    """Write the heads, and their probabilities and predictions for the training rows."""
    X = training_rows()[0]
    answers = {}
    for name, head in fitted_heads().items():
        heads.save(head, folder / name, {"space": SPACE, "label": "species"})
        answers[f"{name}/probabilities"] = np.asarray(heads.probabilities(head, X))
        answers[f"{name}/predictions"] = np.asarray(head.predict(X)).astype(str)
    np.savez_compressed(folder / "answers.npz", rows=X, **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
