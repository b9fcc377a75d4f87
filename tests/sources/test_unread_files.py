"""Files of kinds that are not read are refused with what to do, before anything is embedded."""

import pytest

import embedstore as es
from embedstore.errors import BadManifest


@pytest.fixture
def store(tmp_path):
    return es.create(tmp_path / "s.store", backbone="embedstore/tiny")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("photos.xlsx", "save it as CSV"),
        ("photos.ODS", "save it as CSV"),
        ("photos.feather", "to_parquet"),
        ("photos.pkl", "to_parquet"),
        ("photos.sqlite", "CSV or Parquet"),
        ("vectors.npy", "--vectors"),
        ("names.txt", "`uri`"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(store, tmp_path, name, cure):
    """It is no image that fails, and nothing is recorded."""
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(BadManifest, match=name) as e:
        store.embed(tmp_path / name)
    assert cure in str(e.value)
    assert len(store.failures().df()) == 0


def test_a_list_of_names_embeds_once_the_cure_is_followed(store, tmp_path):
    """Save it as .csv with a first line ``uri``."""
    from PIL import Image

    names = [f"p{k}.png" for k in range(3)]
    for k, name in enumerate(names):
        Image.new("RGB", (32, 32), (80 * k, 10, 10)).save(tmp_path / name)
    (tmp_path / "names.csv").write_text("\n".join(["uri", *names]))
    assert store.embed(tmp_path / "names.csv").embedded == 3


def test_such_a_file_inside_a_folder_is_only_counted(store, tmp_path):
    """A folder of photos may hold spreadsheets."""
    from PIL import Image

    (tmp_path / "d").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "d" / "p.png")
    (tmp_path / "d" / "notes.xlsx").write_bytes(b"anything")
    report = store.embed(tmp_path / "d")
    assert (report.embedded, report.failures) == (1, 0)
