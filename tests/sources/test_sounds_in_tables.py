"""Sounds inside Parquet files and saved data sets, as Hugging Face's data sets of sound have them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embedstore as es
from embedstore.errors import BadManifest
from embedstore.sources.open import open_source
from embedstore.sources.table_options import TableOptions
from tests.helpers.parquet_files import IMAGE, class_label, hf_rows, png, write_hf
from tests.helpers.scans import scan
from tests.helpers.sound_models import save_sound_model, sound_file, tone

AUDIO = {"_type": "Audio", "sampling_rate": 16000}
CLIPS = [sound_file(tone(0.5, pitch=pitch), kind=kind) for pitch, kind in ((220, "WAV"), (440, "FLAC"), (880, "OGG"))]


def write_clips(file):
    """Write a table of clips, one of which is broken, with classes."""
    rows = {"audio": hf_rows([*CLIPS, b"no sound"], ["a.wav", "b.flac", "c.ogg", "d.wav"])}
    rows |= {"cover": pa.array([png(0)] * 4), "label": pa.array([0, 1, 1, 0])}
    return write_hf(
        file,
        rows,
        {"audio": AUDIO, "cover": {"_type": "Value", "dtype": "binary"}, "label": class_label("low", "high")},
    )


def test_the_column_that_is_called_sound_is_read(tmp_path):
    """It is found by its type among other columns of bytes, and by `--uri-column` next to one of images."""
    refs, failures = scan(open_source(write_clips(tmp_path / "clips.parquet")))
    assert (len(refs), failures) == (4, [])
    assert refs[1].uri == f"{tmp_path / 'clips.parquet'}#column=audio&row=1"
    both = write_hf(
        tmp_path / "both.parquet",
        {"sound": hf_rows(CLIPS), "frame": hf_rows([png(n) for n in range(3)])},
        {"sound": AUDIO, "frame": IMAGE},
    )
    images, sounds = open_source(both), open_source(both, table=TableOptions(uri_column="sound"))
    assert list(images.read(scan(images)[0])) == [png(n) for n in range(3)]
    assert list(sounds.read(scan(sounds)[0])) == CLIPS
    two = write_hf(tmp_path / "two.parquet", {"a": hf_rows(CLIPS), "b": hf_rows(CLIPS)}, {"a": AUDIO, "b": AUDIO})
    with pytest.raises(BadManifest, match="--uri-column"):
        open_source(two)


def test_sounds_of_a_data_set_are_embedded(tmp_path):
    """From a Parquet file and from what `save_to_disk` wrote: vectors, classes, and a row that is no sound."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    file = write_clips(tmp_path / "clips.parquet")
    table = datasets.table.InMemoryTable(pq.read_table(file).slice(0, len(CLIPS)))
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    model = save_sound_model(tmp_path / "hubert", "hubert")
    with es.create(tmp_path / "clips.store", f"hf/{model}", device="cpu") as store:
        report = store.embed(file, progress=False)
        assert (report.embedded, report.failures_by_reason) == (3, {"not_a_sound": 1})
        assert store.sql("SELECT label, count(*) FROM items GROUP BY 1 ORDER BY 1").rows == (("high", 2), ("low", 1))
        assert store.search(CLIPS[1], k=1)[0].label == "high"
        again = store.embed(tmp_path / "saved", progress=False)
        assert (again.reused, again.failures) == (3, 0)
