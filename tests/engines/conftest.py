"""A real Ray cluster of two nodes on this machine, and empty databases in real servers."""

import itertools
import os

import pytest

from tests.conftest import ROOT
from tests.helpers.postgres_server import serve_postgres

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
NUMBERS = itertools.count()


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
def postgres():
    """A real PostgreSQL with pgvector; called with a name it makes a database and returns its address."""
    with serve_postgres() as server:
        yield server.make


@pytest.fixture(scope="module", params=["pgvector", "qdrant"])
def new_address(request, tmp_path_factory):
    """A function that makes an empty database and returns its address."""
    if request.param == "pgvector":
        postgres = request.getfixturevalue("postgres")
        return lambda: postgres(f"d{next(NUMBERS)}")
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    server = os.environ.get("EMBEDSTORE_QDRANT_URL")
    if server:
        return lambda: server.replace("http://", "qdrant://")
    return lambda: f"qdrant://{tmp_path_factory.mktemp('qdrant')}"


@pytest.fixture
def address(new_address):
    """An empty database."""
    return new_address()


@pytest.fixture
def database(postgres):
    """An empty database of PostgreSQL."""
    return postgres(f"d{next(NUMBERS)}")
