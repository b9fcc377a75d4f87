"""Fine-tuning in several real processes: they never wait for each other, and give the weights of one."""

import pytest
import torch

from tools.gpu_check.steps import have_equal_weights, run_ranks

PLENTY = 100


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The training by one process with plenty of memory."""
    return run_ranks(tmp_path_factory.mktemp("alone") / "1", (PLENTY,))[0]


def is_close(a, b) -> bool:
    """Return whether two trainings have the same losses and weights."""
    same_weights = all(torch.allclose(a["state"][name], b["state"][name], atol=2e-5) for name in a["state"])
    return same_weights and a["losses"] == pytest.approx(b["losses"], rel=1e-5)


@pytest.mark.parametrize("capacities", [(PLENTY, PLENTY), (PLENTY, 1)], ids=["uneven shares", "one lacks memory"])
def test_two_processes_end_and_give_the_weights_of_one(tmp_path, alone, capacities):
    """Batches of 7 and 5 on two processes: each image counts once, and a process that runs out of memory makes more,
    smaller backward passes without the other waiting for ever.
    """
    first, second = run_ranks(tmp_path / "2", capacities)
    assert is_close(first, alone)
    assert is_close(second, alone)
    assert have_equal_weights(first, second)
    assert first["micro"] == second["micro"]
    assert (first["micro"] == 1) == (1 in capacities)


def test_an_image_that_does_not_fit_into_one_process_ends_all_of_them(tmp_path):
    """Both report it; neither hangs."""
    with pytest.raises(ChildProcessError) as error:
        run_ranks(tmp_path / "2", (PLENTY, 0))
    assert str(error.value).count("FinetuneError: not even one item fits into the memory of") == 2
