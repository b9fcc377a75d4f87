"""The bench verb: every stage measured on given images, and what limits named."""

import json

import pytest

from embedstore.backbones.runtimes.batch_size import find_batch_size
from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.cli import main
from embedstore.errors import NoImages
from embedstore.quickstart import bench
from tests.conftest import TINY

SMALL = bench.BenchSettings(TINY, seconds=0.2, images=8, threads=2, device="cpu", runtime=Runtime.EAGER)


def test_the_knee_is_the_smallest_batch_within_reach_of_the_best():
    """Worked by hand: flat from 8 on; what does not fit ends the search; a gain of 5% goes on."""
    flat = {1: 10, 2: 20, 4: 40, 8: 60, 16: 61, 32: 99}
    assert find_batch_size(flat.get, 1, 32) == (8, {b: flat[b] for b in (1, 2, 4, 8, 16)})
    assert find_batch_size({8: 10, 16: 20}.get, 8, 64)[0] == 16
    assert find_batch_size({}.get, 8, 64) == (4, {})
    rising = {b: float(b) for b in (1, 2, 4, 8)}
    assert find_batch_size(rising.get, 1, 8) == (8, rising)


def test_every_stage_of_a_folder_is_measured(photos, tmp_path):
    """Rates are there, the limit follows from two of them, a broken file is counted, and nothing is left behind."""
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    before = sorted(p.name for p in photos.rglob("*"))
    found = bench.run(photos, bench.BenchSettings(TINY, seconds=0.2, threads=2, device="cpu", runtime=Runtime.ONNX))
    assert (found.images, found.failed, found.pixels) == (12, 1, 48 * 40)
    assert [n.runtime for n in found.networks] == ["eager", "onnx"]
    assert all(n.images_per_second > 0 for n in found.networks)
    assert found.networks[1].cosine > 0.9999
    assert min(found.read, found.decode, found.write, found.end_to_end) > 0
    assert list(found.decoders) == ["pillow", "quick"]
    assert found.decode == found.decoders[found.decoder]
    fastest = max(n.images_per_second for n in found.networks)
    assert found.limit == pytest.approx(1 / (1 / found.decode + 1 / fastest))
    assert found.knee in found.batches
    assert "-bound: " in found.bottleneck
    assert sorted(p.name for p in photos.rglob("*")) == before


def test_the_sample_is_spread_over_the_folder_and_bounded(photos, monkeypatch):
    """Four of twelve, evenly; and no more bytes of files at once than the limit."""
    names = [r.path.rsplit("/", 1)[-1] for r in bench._sample(photos, 12)]
    assert [r.path.rsplit("/", 1)[-1] for r in bench._sample(photos, 4)] == names[::3]
    monkeypatch.setattr(bench, "MAX_SAMPLE_BYTES", 1)
    assert len(bench._sample(photos, 12)) == 1


def test_without_a_folder_pictures_are_made(capsys):
    """The verb prints one JSON document, or a table that ends with the line that names the bottleneck."""
    arguments = ["bench", "--backbone", TINY, "--seconds", "0.1", "--images", "4", "--runtime", "eager"]
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    made = json.loads(capsys.readouterr().out)
    assert (made["images"], made["pixels"]) == (4, 500 * 375)
    with pytest.raises(SystemExit):
        main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["stage", "images/s"]
    assert "-bound: " in lines[-1]


def test_a_folder_without_images_is_an_error(tmp_path):
    """Nothing to measure on."""
    with pytest.raises(NoImages, match="has no files"):
        bench.run(tmp_path, SMALL)
