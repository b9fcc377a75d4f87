"""A store of photos to export."""

import io

import pytest
from PIL import Image

import embedstore as es
from tests.sources.test_archives import zip_bytes


def jpeg(n: int) -> bytes:
    """A JPEG of one color."""
    out = io.BytesIO()
    Image.new("RGB", (32 + n, 24), (n * 20 % 256, 90, 200 - n)).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve JPEGs in train and val, cats and dogs, with a column of a spreadsheet's formulas, and one PNG in a zip."""
    folder = tmp_path_factory.mktemp("exports")
    for n in range(12):
        path = folder / "photos" / ("val" if n % 4 == 3 else "train") / ("cat" if n < 6 else "dog") / f"{n:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(n))
    png = io.BytesIO()
    Image.new("RGB", (20, 20), (9, 9, 200)).save(png, "PNG")
    (folder / "more.zip").write_bytes(zip_bytes([("x.png", png.getvalue())]))
    store = es.create(folder / "s", "embedstore/tiny", device="cpu")
    store.embed(folder / "photos", progress=False)
    store.embed(folder / "more.zip", labels_from=None, progress=False)
    store.edit({"note": "'=1+' || item", "year": "2000 + item", "tags": "['a', 'b']"}, "true", create_columns=True)
    return store
