"""The commands that messages on a plan in a bucket name are followed as they are written; a real S3 server."""

import pytest

from tests.helpers.cures import Cure, follow
from tests.helpers.s3_server import serve_bucket
from tests.pipeline.test_embed import tiny_store


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A bucket on moto's server; the working folder is that of the test."""
    monkeypatch.chdir(tmp_path)
    with serve_bucket(monkeypatch) as served:
        yield served


@pytest.fixture
def prepare(photos):
    """Make a store, beside a folder of photos."""
    return lambda folder: tiny_store(folder / "my store", runtime="eager")


@pytest.mark.parametrize("words", ["work {}/nothing --part 1/1", "info {}/my.store", "embed {}/my.store photos"])
def test_an_address_that_is_no_plan_and_no_store_names_how_to_make_one(
    bucket, prepare, photos, tmp_path, capsys, words
):
    """The plan can be made as the message says."""
    fills = {"SOURCE": str(photos), "s3://BUCKET/FOLDER": f"{bucket.url}/inbox"}
    cure = Cure(
        "plan-parts STORE SOURCE --inbox s3://BUCKET/FOLDER", prepare, words.format(bucket.url), fills, works="info S"
    )
    follow(cure, tmp_path, capsys)


def test_the_command_of_a_worker_works(bucket, prepare, photos, tmp_path, capsys):
    """What `plan-parts` prints is run as it is, and the part is registered."""
    words = f"plan-parts S '{photos}' --parts 1 --inbox {bucket.url}/inbox"
    cure = Cure("work {} --part N/{}", prepare, words, {"N/1": "1/1"}, works="register S")
    follow(cure, tmp_path, capsys)
