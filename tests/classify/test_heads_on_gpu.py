"""Heads on a pretended GPU: the weights of the CPU, few waits, and memory that is respected."""

import numpy as np
import pytest

from embedstore.classify.heads.linear import backend
from embedstore.classify.heads.linear.backend import MIN_GPU_WORK, resolve_device, select_backend
from embedstore.classify.heads.linear.coordinates import prepare_rows
from embedstore.classify.heads.linear.probe import LogisticProbe
from embedstore.classify.heads.linear.softmax import SoftmaxProblem
from embedstore.classify.heads.mlp import MLPHead
from embedstore.errors import BadHead
from tests.helpers.pretend_cuda import pretended_gpus

ROWS, DIM = 600, 12
CS = [0.01, 1.0, 100.0]


def rows_of(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of some classes that overlap."""
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % classes
    return (rng.normal(size=(classes, DIM))[y] + rng.normal(size=(ROWS, DIM))).astype(np.float32), y


@pytest.fixture
def gpu_files(monkeypatch):
    """A machine that has the files of a GPU's driver."""
    monkeypatch.setattr(backend, "_GPU_FILES", ("/",))


@pytest.mark.parametrize(
    ("classes", "memory", "options"),
    [(2, 1 << 30, {"Cs": CS, "cv": 2}), (4, 1 << 30, {"C": 1.0}), (4, 200_000, {"C": 1.0})],
)
def test_a_probe_on_the_gpu_is_that_of_the_cpu(monkeypatch, classes, memory, options):
    """Along a path of C, for several classes, and where the memory holds a part of the rows at a time."""
    X, y = rows_of(classes)
    expected = LogisticProbe(**options, device="cpu").fit(X, y)
    with pretended_gpus(monkeypatch, memory=memory) as machine:
        probe = LogisticProbe(**options, device="cuda").fit(X, y)
        assert machine.counts["kernels"] > 100
    assert probe.C_ == expected.C_
    assert np.allclose(probe.predict_proba(X), expected.predict_proba(X), atol=1e-3)


def pass_cost(monkeypatch, memory: int) -> dict[str, int]:
    """Return what one pass over the rows costs on a device with so much memory."""
    X, y = rows_of(4)
    with pretended_gpus(monkeypatch, memory=memory) as machine:
        be = select_backend("cuda", np.dtype(np.float32))
        rows, basis = prepare_rows(be, X, y, 4, n_folds=2, standardize=False, n_passes=50)
        problem = SoftmaxProblem(rows, np.arange(ROWS) % 2 == np.arange(2)[:, None])
        theta = problem.initial_parameters(basis)
        machine.gpus[0].counts.clear()
        problem.evaluate(theta, basis)
        return dict(machine.counts)


def test_a_pass_waits_for_the_gpu_once_whatever_the_number_of_blocks(monkeypatch):
    """The sums stay on the device; rows that are there already are not copied again."""
    whole, parts = pass_cost(monkeypatch, 1 << 30), pass_cost(monkeypatch, 60_000)
    assert parts["kernels"] > 3 * whole["kernels"]
    assert whole["copies_to_host"] == parts["copies_to_host"] == 1
    assert whole.get("pageable_copies", 0) == 0


def test_little_work_stays_on_the_cpu(monkeypatch, gpu_files):
    """Below the threshold nothing reaches the device, and above it everything does."""
    X, y = rows_of(4)
    with pretended_gpus(monkeypatch) as machine:
        LogisticProbe(CS, cv=2).fit(X, y)
        assert not machine.counts
        monkeypatch.setattr(backend, "MIN_GPU_WORK", 0)
        LogisticProbe(C=1.0).fit(X, y)
        assert machine.counts["kernels"]
        monkeypatch.undo()
    assert resolve_device("cuda:1", 0) == "cuda:1"
    assert resolve_device("cpu", 2 * MIN_GPU_WORK) == "cpu"


def test_rows_that_do_not_fit_go_to_the_cpu_or_are_an_error(monkeypatch, gpu_files):
    """``auto`` goes on with the CPU; a device that the user named is one line that says how much is free."""
    X, y = rows_of(4)
    monkeypatch.setattr(backend, "MIN_GPU_WORK", 0)
    with pretended_gpus(monkeypatch, memory=1000):
        probe = LogisticProbe(C=1.0).fit(X, y)
        with pytest.raises(BadHead, match=r"do not fit into the memory of cuda .*GB are free.*use device='cpu'"):
            LogisticProbe(C=1.0, device="cuda").fit(X, y)
        with pytest.raises(BadHead, match="do not fit into the memory of cuda"):
            MLPHead(device="cuda").fit(X, y)
    assert np.array_equal(probe.coef_, LogisticProbe(C=1.0, device="cpu").fit(X, y).coef_)


def test_another_error_of_a_gpu_is_not_mistaken_for_a_lack_of_memory(gpu_files, monkeypatch):
    """It is raised as it is."""
    monkeypatch.setattr(backend, "MIN_GPU_WORK", 0)

    def broken(device: str) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pretended_gpus(monkeypatch), pytest.raises(RuntimeError, match="illegal memory access"):
        backend.compute_on("auto", 1.0, broken)
