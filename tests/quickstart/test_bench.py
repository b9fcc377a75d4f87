"""The bench verb: every stage is measured on the user's images, and the bottleneck is named."""

import json

import pytest

from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.cli import main
from embedstore.errors import NoImages
from embedstore.quickstart import bench
from embedstore.quickstart.bench_result import BenchSettings
from tests.conftest import TINY


def test_every_stage_of_a_folder_is_measured(photos):
    """Every rate is positive, the limit follows from two of them, a broken file is counted, and nothing is left."""
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    before = sorted(p.name for p in photos.rglob("*"))
    settings = BenchSettings(TINY, seconds_per_stage=0.2, threads=2, device="cpu", runtime=Runtime.ONNX)
    result = bench.run(photos, settings)
    assert (result.images, result.failed, result.mean_pixels) == (12, 1, 48 * 40)
    assert [r.runtime for r in result.runtimes] == ["eager", "onnx"]
    assert all(r.images_per_second > 0 for r in result.runtimes)
    assert result.runtimes[1].min_cosine > 0.9999
    assert min(result.read_rate, result.decode_rate, result.write_rate, result.end_to_end_rate) > 0
    assert list(result.decode_rates) == ["pillow", "exact", "quick"]
    assert result.decode_rate == result.decode_rates[result.decoder]
    fastest = max(r.images_per_second for r in result.runtimes)
    assert result.expected_rate == pytest.approx(1 / (1 / result.decode_rate + 1 / fastest))
    assert result.batch_size in result.rate_by_batch_size
    assert "-bound: " in result.bottleneck
    assert sorted(p.name for p in photos.rglob("*")) == before


def test_the_sample_is_spread_over_the_folder_and_bounded_in_bytes(photos, monkeypatch):
    """Four of twelve files are evenly spread, and a small byte limit leaves one file."""

    def sample(count):
        return [r.path.rsplit("/", 1)[-1] for r in bench.draw_sample(photos, count)]

    assert sample(4) == sample(12)[::3]
    monkeypatch.setattr(bench, "MAX_SAMPLE_BYTES", 1)
    assert len(sample(12)) == 1


def test_images_are_generated_without_a_folder(capsys):
    """The verb prints one JSON document, or a table whose last line names the bottleneck."""
    arguments = ["bench", "--backbone", TINY, "--seconds-per-stage", "0.1", "--max-images", "4", "--runtime", "eager"]
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["images"], document["pixels"]) == (4, 500 * 375)
    assert document["networks"][0].keys() == {"runtime", "images_per_second", "cosine", "why", "precision"}
    assert document["knee"] in map(int, document["batches"])
    assert min(document[rate] for rate in ("read", "decode", "write", "end_to_end", "limit")) > 0
    with pytest.raises(SystemExit):
        main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["stage", "images/s"]
    assert "-bound: " in lines[-1]


def test_a_folder_without_images_is_an_error(tmp_path):
    """There is nothing to measure."""
    with pytest.raises(NoImages, match="has no files"):
        bench.run(tmp_path, BenchSettings(TINY, device="cpu"))
