"""Tables whose paths lead to no file: one error if all do, failures and one line if some do."""

import pandas as pd
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadManifest
from tests.helpers.parquet_files import IMAGE, hf_rows, write_hf


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "frame", "rows of paths"])
def test_a_table_of_which_no_file_exists_is_one_error_and_nothing_is_recorded(tmp_path, monkeypatch, kind):
    """The message names the folder, an example and a cure, and following the cure works."""
    monkeypatch.chdir(tmp_path)
    for n in range(2):
        path = tmp_path / "photos" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (90 * n, 0, 0)).save(path)
    frame = pd.DataFrame({"uri": ["0.png", "1.png"], "note": ["a", "b"]})
    source = {"frame": frame}.get(kind, tmp_path / f"t.{kind}")
    if kind == "csv":
        frame.to_csv(source, index=False)
    elif kind == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    elif kind == "parquet":
        frame.to_parquet(source)
    elif kind == "rows of paths":
        source = write_hf(
            tmp_path / "rows.parquet", {"image": hf_rows([None, None], ["0.png", "1.png"])}, {"image": IMAGE}
        )
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    with pytest.raises(BadManifest, match="none of its 2 files exists") as e:
        store.embed(source, progress=False)
    assert f"start from {tmp_path} (--root" in str(e.value)
    assert str(tmp_path / "0.png") in str(e.value)
    assert store.sql(
        "SELECT (SELECT count(*) FROM failures), (SELECT count(*) FROM runs WHERE verb = 'embed')"
    ).rows == ((0, 0),)
    assert "note" not in store.sql("SELECT * FROM items").column_names
    assert store.embed(source, root="photos", progress=False).embedded == 2


def test_some_missing_files_are_failures_and_one_line(tmp_path):
    """The report counts them, and says where they were looked for and which other column may name them."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("uri,filename\na.png,x\nb.png,y\nc.png,z\n")
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed(tmp_path / "t.csv", progress=False)
    assert (report.embedded, report.failures_by_reason) == (1, {"missing": 2})
    (note,) = [n for n in report.notices if "do not exist" in n]
    assert "2 of 3 files do not exist" in note
    assert str(tmp_path / "b.png") in note
    assert "--uri-column filename" in note
