"""Data that libraries fail on: every method gives a result or one error of ours, and never ends the process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

SCRIPT = """
import json, sys, tempfile, warnings
from pathlib import Path
import numpy as np
import embedstore as es

warnings.simplefilter("ignore")  # scikit-learn says of some heads that they are ill-conditioned, which they are
X = np.load(sys.argv[1])
folder = Path(tempfile.mkdtemp(dir=sys.argv[2]))
n, dim = X.shape
store = es.create(folder / "s")
labels = ["ab"[i % 2] for i in range(n)]
some = [*labels[: max(1, n // 2)], *[None] * (n - max(1, n // 2))]
table = {"uri": [f"/{i}" for i in range(n)], "label": labels, "same": ["x"] * n, "some": some}
store.add_vectors(X, table, dtype="float32")
text = np.eye(2, dim) + 0.1
calls = {
    "map": store.map,
    "cluster 1": lambda: store.cluster(1),
    "cluster 3": lambda: store.cluster(3),
    "duplicates": store.duplicates,
    "duplicates approximate": lambda: store.duplicates(0.5, exact=False),
    "search": lambda: store.search(1, k=50),
    "diversity": lambda: store.search(1, diversity=0.5),
    "like": lambda: store.search(like=[1], unlike=[n]),
    "like eight": lambda: store.search(like=[1 + i % n for i in range(8)], unlike=[n - i % n for i in range(8)]),
    **{f"index {k}": (lambda k=k: store.build_index(kind=k)) for k in ("flat", "hnsw", "ivf")},
    "search in the index": lambda: store.search(1, k=50),
    **{f"probe {h}": (lambda h=h: store.probe(head=h)) for h in ("logistic", "knn", "prototype", "lda", "svm")},
    "probe of one class": lambda: store.probe("same"),
    "folds": lambda: store.probe(head="ridge", folds=3),
    "isotonic": lambda: store.probe(head="ridge", calibrate="isotonic"),
    "temperature": lambda: store.probe(head="ridge", calibrate="temperature"),
    "abstain": lambda: store.probe(head="ridge", abstain_precision=0.9),
    "conformal": lambda: store.probe(head="ridge", conformal_alpha=0.1),
    "many neighbors": lambda: store.knn(k=100),
    "learning curve": lambda: store.learning_curve(head="ridge", labels_per_class=[1, 2], repeats=2),
    "compare": lambda: store.compare_heads(heads=["ridge", "knn"]),
    "zero-shot": lambda: store.zero_shot(["a", "b"], class_vectors=text).evaluate(),
    "zero-shot of zeros": lambda: store.zero_shot(["a", "b"], class_vectors=0 * text).evaluate(),
    "zero-shot of NaN": lambda: store.zero_shot(["a", "b"], class_vectors=np.nan * text).evaluate(),
    "few-shot": lambda: store.few_shot(classes=["a", "b"], class_vectors=text, shots=1),
    "blend": lambda: store.few_shot(classes=["a", "b"], class_vectors=text, shots=1, head="blend"),
    "label errors": lambda: store.label_errors(head="ridge"),
    "suggest labels": lambda: store.suggest_labels("some", head="ridge"),
    "predict": lambda: (store.save_head("h", store.probe(head="ridge")), store.predict("h")),
    "compact": store.compact,
    "export": lambda: store.export(folder / "x.parquet"),
}
out = {}
for name, call in calls.items():
    print(json.dumps(["begin", name, ""]), flush=True)
    try:
        call()
        out[name] = "a result"
    except es.EmbedstoreError as e:
        out[name] = "an error" if "\\n" not in str(e) else f"more than one line: {e}"
    except BaseException as e:
        out[name] = f"{type(e).__name__}: {e}"
    print(json.dumps(["end", name, out[name]]), flush=True)
assert store.verify().ok
"""


def rows(kind: str) -> np.ndarray:
    """Return rows that some library fails on."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((40, 8))
    return {
        "one row": lambda: np.ones((1, 8)),
        "two rows": lambda: np.eye(2, 3),
        "equal rows": lambda: np.ones((60, 8)),
        "nearly equal rows": lambda: 1 + 1e-7 * normal,
        "two values": lambda: np.repeat(np.eye(2), 30, axis=0),
        "opposite values": lambda: np.repeat([[1.0, 0], [-1, 0]], 30, axis=0),
        "one dimension": lambda: np.where(np.arange(40) % 2, 1.0, -1.0)[:, None],
        "a line": lambda: np.outer(np.arange(1, 41), np.ones(8)),
        "constant columns": lambda: np.hstack([normal[:, :3], np.full((40, 5), 5.0)]),
        "zero columns": lambda: np.hstack([normal[:, :3], np.zeros((40, 5))]),
        "long rows": lambda: normal * 1e13,
        "short rows": lambda: normal * 1e-13,
        "lengths of all sizes": lambda: normal * 10.0 ** rng.integers(-12, 13, (40, 1)),
        "more columns than rows": lambda: rng.standard_normal((7, 500)),
        "orthogonal rows": lambda: np.eye(40),
        "an outlier": lambda: np.vstack([-np.ones((1, 8)), np.ones((49, 8))]),
    }[kind]().astype(np.float32)


KINDS = [
    "one row", "two rows", "equal rows", "nearly equal rows", "two values", "opposite values", "one dimension",
    "a line", "constant columns", "zero columns", "long rows", "short rows", "lengths of all sizes",
    "more columns than rows", "orthogonal rows", "an outlier",
]  # fmt: skip
QUICK = ("two rows", "equal rows", "opposite values", "lengths of all sizes")


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_every_method_gives_a_result_or_one_error(tmp_path, kind):
    """Without a foreign error or a crash, which a process of its own shows."""
    np.save(tmp_path / "rows.npy", rows(kind))
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "rows.npy", tmp_path],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, (lines[-1:], run.stderr[-2000:])
    bad = {name: what for state, name, what in lines if state == "end" and what not in ("a result", "an error")}
    assert bad == {}
    if kind not in ("one row", "two rows"):
        results = {name for state, name, what in lines if state == "end" and what == "a result"}
        assert {"map", "cluster 1", "duplicates", "search", "index flat", "index hnsw", "index ivf"} <= results
