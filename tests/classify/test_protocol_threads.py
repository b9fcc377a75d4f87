"""Protocols fit on one thread of linear algebra, and leave the process as they found it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from embedstore.classify.protocols import c_search, mteb_protocol


class WaitingLabel:
    """A label whose text is asked for inside of a fit, which then waits."""

    def __init__(self):
        self.is_inside, self.may_leave = Event(), Event()

    def __str__(self):
        self.is_inside.set()
        assert self.may_leave.wait(60)
        return "a"


@pytest.mark.parametrize("fit", [lambda X, y: c_search.scikit_learn_fit(X, y, 1.0), mteb_protocol.fit_draw])
def test_fits_that_overlap_leave_the_threads_of_the_process_as_they_were(fit):
    """A server evaluates for several people; the first that begins is the first that ends."""
    X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    waiting = [WaitingLabel(), WaitingLabel()]
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(2) as pool:
        fits = []
        for label in waiting:
            fits.append(pool.submit(fit, X, np.array([label] + ["a", "b"] * 3 + ["b"], object)))
            assert label.is_inside.wait(60)
        for label, future in zip(waiting, fits, strict=True):
            label.may_leave.set()
            assert future.result(60).classes_.tolist() == ["a", "b"]
        assert {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"} == {2}
