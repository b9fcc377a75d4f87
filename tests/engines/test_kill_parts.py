"""Workers and the writer of parts in a bucket are killed at random, and every row is that of a local run."""

import os

import pytest

from tests.engines import kill_parts, kill_run

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("server", ["moto", "rclone"])
def test_kills_of_workers_and_of_the_writer_lose_nothing(server, tmp_path):
    """Each server is a real one; runs are repeated until there were enough kills."""
    images, most = tmp_path / "images", int(os.environ.get("EMBEDSTORE_KILLS", "50"))
    kill_run.write_images(images, 400)
    wanted = kill_run.embed_locally(tmp_path / "local.store", images)
    kills = 0
    with kill_parts.serve_inbox(server, tmp_path) as inbox:
        for seed in range(most):
            path = tmp_path / f"run{seed}.store"
            result, more = kill_parts.run_once(path, images, wanted, inbox, most=most - kills, seed=seed)
            assert result.is_right, result
            kills += more
            if kills >= most:
                break
    assert kills >= most
