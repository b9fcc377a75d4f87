"""Compare our probe, on the CPU and on a GPU if there is one, with scikit-learn's on the same grid and folds.

``python -m tests.benchmarks.bench_probe features.npz [...]`` reads files with ``X`` (N, D) and ``y`` (N,).
``--synthetic N,D,K`` generates features of that shape; ``--ours`` leaves scikit-learn out; ``--hold-out S`` chooses C
on a share instead of five folds; ``--tols`` are scikit-learn's tolerances. ``x`` is how many times as long as ours a
solver takes. The objective is C * sum of losses + |w|^2 / 2 of the last fit in float64, relative to the lowest in the
table; the out-of-fold log-loss is the mean over the folds at the chosen C.
"""

import argparse
import resource
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

from embedstore.classify.heads import LogisticProbe


def synthetic(n, d, k, seed=0):
    """Return overlapping classes in float32 features whose spectrum falls like that of a network's features."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    centers = rng.standard_normal((k, d)).astype(np.float32)
    X = rng.standard_normal((n, d), dtype=np.float32)
    X += 0.2 * centers[y]
    X *= np.arange(1, d + 1, dtype=np.float32) ** -0.5
    return X, y


def objective(X, y, head, C):
    """Return the objective in float64, computed block by block."""
    codes, loss = np.searchsorted(head.classes_, y), 0.0
    w, b = np.asarray(head.coef_, np.float64), np.asarray(head.intercept_, np.float64)
    for i in range(0, len(X), 4096):
        z = X[i : i + 4096].astype(np.float64) @ w.T + b
        z = np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z
        top = z.max(1)
        true = z[np.arange(len(z)), codes[i : i + 4096]]
        loss += float((np.log(np.exp(z - top[:, None]).sum(1)) + top - true).sum())
    return C * loss + float((w**2).sum()) / 2


def timed(head, X, y):
    """Return the fitted head, its wall seconds, and its CPU seconds (which a busy machine changes less)."""
    start = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head.fit(X, y)
    return head, (time.perf_counter() - start[0], time.process_time() - start[1])


def rows_of(X, y, grid, args):
    """Yield one row per solver: name, seconds, C, objective, log-loss, accuracy, number of values of C tried."""
    cv = args.hold_out or args.folds
    probes = {"ours": LogisticProbe(grid, cv, device="cpu")}
    probes["ours, whole path"] = LogisticProbe(grid, cv, device="cpu", patience=None)
    if _cuda():
        LogisticProbe(grid, cv, device="cuda").fit(X[:2000], y[:2000])  # loads the context and the kernels
        probes["ours, CUDA"] = LogisticProbe(grid, cv, device="cuda")
    if args.ours:
        del probes["ours, whole path"]
    for name, probe in probes.items():
        head, seconds = timed(probe, X, y)
        at = next(p for p in head.path_ if p.C == head.C_)
        yield name, seconds, head.C_, objective(X, y, head, head.C_), at.log_loss, at.accuracy, len(head.path_)
    if args.ours:
        return
    folds = list(StratifiedKFold(args.folds, shuffle=True, random_state=0).split(X, y))
    for tol in args.tols:
        options = {"cv": folds, "scoring": "neg_log_loss", "max_iter": 1000, "tol": tol, "n_jobs": args.jobs}
        head, seconds = timed(
            LogisticRegressionCV(Cs=grid, l1_ratios=(0,), use_legacy_attributes=False, **options), X, y
        )
        C = float(head.C_)
        loss = -head.scores_.mean(0).ravel()[list(grid).index(C)]
        yield f"LogisticRegressionCV tol={tol}", seconds, C, objective(X, y, head, C), loss, np.nan, len(grid)


def _cuda():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def main():
    """Print one table per data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--synthetic", action="append", default=[])
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--hold-out", type=float, default=0.0)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--tols", type=lambda text: [float(v) for v in text.split(",")], default=[1e-4, 1e-6])
    parser.add_argument("--grid", default="-5,3,9", help="log10 of the first and of the last C, and their number")
    args = parser.parse_args()
    first, last, n = (int(v) for v in args.grid.split(","))
    sets = {}
    for file in args.files:
        with np.load(file) as data:
            sets[file.stem] = (data["X"].astype(np.float32), data["y"])
    for shape in args.synthetic:
        sets[shape] = synthetic(*map(int, shape.split(",")))
    LogisticProbe(2, device="cpu").fit(*synthetic(60, 4, 2))  # completes the lazy imports
    for name, (X, y) in sets.items():
        print(f"\n{name}: {X.shape[0]} rows, {X.shape[1]} features, {len(np.unique(y))} classes, C 1e{first}..1e{last}")
        names = "wall s", "x", "cpu s", "x", "C", "objective", "log-loss", "accuracy", "Cs"
        print(f"{'solver':34}" + "".join(f"{n:>10}" for n in names))
        table = list(rows_of(X, y, np.logspace(first, last, n), args))
        base, best = table[0][1], min(r[3] for r in table)
        for solver, (wall, cpu), C, f, loss, acc, cs in table:
            speeds = f"{wall:10.3f}{wall / base[0]:10.1f}{cpu:10.3f}{cpu / base[1]:10.1f}"
            print(f"{solver:34}{speeds}{C:10.3g}{f / best - 1:+10.1e}{loss:10.4f}{acc:10.4f}{cs:10d}")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
