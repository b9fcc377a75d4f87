"""What an export wrote is a source again."""

import pytest

import embedstore as es

READ_BACK = {  # what is exported, and how it is embedded again
    "webdataset": "*.tar", "huggingface": "", "fiftyone": "samples.json", ".tar": "", ".csv": "", ".parquet": "",
}  # fmt: skip


@pytest.mark.parametrize("file_format", READ_BACK)
def test_an_export_is_embedded_again_with_its_labels_and_splits(photos, tmp_path, file_format):
    """Also the items that are in no split, next to those of train and val."""
    out = tmp_path / (f"out{file_format}" if file_format.startswith(".") else "out")
    photos.export(out, file_format=None if file_format.startswith(".") else file_format)
    again = es.create(tmp_path / "again", "embedstore/tiny", device="cpu")
    again.embed(f"{out}/{READ_BACK[file_format]}".rstrip("/"), progress=False)
    query = "SELECT label, split, year, count(*) FROM items GROUP BY ALL ORDER BY ALL"
    assert again.sql(query).rows == photos.sql(query).rows
