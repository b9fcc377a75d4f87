"""The packages in examples/, installed by their entry points."""

import io
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadOption, ImageError
from embedstore.media.image import decode
from embedstore.sources.locations import read_location
from embedstore.types import ContentInfo, FailureReason
from tests.helpers.plug_ins import EXAMPLES, install_example  # noqa: F401 - a fixture
from tests.sources.test_archives import picture


def jpeg_xl(image: Image.Image, **options) -> bytes:
    """An image as a lossless JPEG XL file."""
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    out = io.BytesIO()
    image.save(out, "JXL", lossless=True, **options)
    return out.getvalue()


def halves(width=40, height=20) -> Image.Image:
    """Red at the left, blue at the right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


def dicom(frames: np.ndarray, **tags) -> bytes:
    """A DICOM file with 16-bit frames ``(n, h, w)``."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.NumberOfFrames, file.Rows, file.Columns = frames.shape
    file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit = 1, 16, 16, 15
    file.PixelRepresentation, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.RescaleSlope, file.RescaleIntercept = 1, -1000
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = frames.astype("<i2").tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, file, enforce_file_format=True)
    return out.getvalue()


RAMP = np.stack([np.arange(256).reshape(16, 16) * 8, np.full((16, 16), 1040)])  # Hounsfield -1000 … 1040, and 40


# ---- JPEG XL


def test_jpeg_xl_is_decoded_to_its_pixels(install_example):  # noqa: F811
    """A lossless file gives every pixel."""
    data = jpeg_xl(halves())
    install_example("jpeg-xl")
    image, facts = decode.open_image(data)
    assert facts == ContentInfo(40, 20, "JXL")
    assert np.array_equal(np.asarray(image), np.asarray(halves()))


def test_a_cut_jpeg_xl_file_is_a_failure(install_example):  # noqa: F811
    """Half a file is not a picture."""
    install_example("jpeg-xl")
    rng = np.random.default_rng(0)
    data = jpeg_xl(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(ImageError):
        decode.open_image(data[: len(data) // 2])


# ---- DICOM


def test_the_window_of_the_file_is_the_default(install_example):  # noqa: F811
    """Values below and above the window are black and white; its center is the middle gray (PS3.3, C.11.2.1.2.1)."""
    install_example("dicom")
    image, facts = decode.open_image(dicom(RAMP, WindowCenter=40, WindowWidth=400))
    assert facts == ContentInfo(16, 16, "DICOM")
    gray = np.asarray(image)[:, :, 0].ravel()
    values = RAMP[0].ravel() - 1000
    expected = np.clip((values - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(gray - expected).max() <= 0.5
    assert (gray[values <= -160].max(), gray[values > 239].min()) == (0, 255)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"dicom.frame": "1", "dicom.window": "40,400"}, 128), ({"dicom.frame": "1", "dicom.window": "1040,2"}, 0)],
)
def test_settings_choose_frame_and_window(install_example, settings, expected):  # noqa: F811
    """The second frame has one value, 40 Hounsfield."""
    install_example("dicom")
    image, _ = decode.open_image(dicom(RAMP), settings)
    assert set(np.asarray(image).ravel().tolist()) == {expected}


def test_monochrome1_is_inverted(install_example):  # noqa: F811
    """The least value is white."""
    install_example("dicom")
    one, _ = decode.open_image(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    two, _ = decode.open_image(dicom(RAMP))
    assert np.array_equal(255 - np.asarray(one), np.asarray(two))


@pytest.mark.parametrize("settings", [{"dicom.frame": "2"}, {"dicom.window": "wide"}, {"dicom.window": "1"}])
def test_settings_that_do_not_fit_a_file_are_a_failure_of_the_file(install_example, settings):  # noqa: F811
    """The detail names what is wrong."""
    install_example("dicom")
    with pytest.raises(ImageError, match=r"frame 2|wide|window") as e:
        decode.open_image(dicom(RAMP), settings)
    assert e.value.reason is FailureReason.CORRUPT


def test_frame_and_window_belong_to_the_space(install_example, tmp_path):  # noqa: F811
    """Another window is another space; embedding again, in a store that was opened anew, gives the same vectors."""
    install_example("dicom")
    (tmp_path / "scans").mkdir()
    for n in range(3):
        (tmp_path / "scans" / f"{n}.dcm").write_bytes(dicom(RAMP + 40 * n, WindowCenter=0, WindowWidth=2000))
    settings = {"dicom.frame": "0", "dicom.window": "40,400"}
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu", preprocess=settings)
    assert store.embed(tmp_path / "scans", progress=False).embedded == 3
    plain = store.add_space("embedstore/tiny", space_name="plain")
    assert plain.space.preprocess.decoding == ()
    assert plain.key != store.spaces[0].key
    store.reembed("plain", progress=False)
    again = es.open(tmp_path / "s", device="cpu")
    assert again.spaces[0].space.preprocess.decoding == tuple(sorted(settings.items()))
    hit = again.search(tmp_path / "scans" / "1.dcm", k=1, space=again.spaces[0].name)[0]
    assert (hit.uri.endswith("1.dcm"), round(hit.score, 4)) == (True, 1.0)
    other = es.create(tmp_path / "t", "embedstore/tiny", device="cpu", preprocess=settings)
    other.embed(tmp_path / "scans", progress=False)
    assert other.spaces[0].key == again.spaces[0].key
    assert np.array_equal(vectors(other, other.spaces[0].name), vectors(again, again.spaces[0].name))
    assert not np.allclose(vectors(again, "plain"), vectors(again, again.spaces[0].name))


def vectors(store: es.Store, space: str) -> np.ndarray:
    """The vectors of a space, in the order of the items."""
    path = store.path.parent / f"{store.path.name}-{space}.npy"
    store.export(path, space=space)
    return np.load(path)


def test_a_setting_that_no_decoder_has_is_refused(install_example, tmp_path):  # noqa: F811
    """The near names are listed, and nothing is created."""
    with pytest.raises(BadOption, match="no installed decoder has options"):
        es.create(tmp_path / "s", "embedstore/tiny", preprocess={"dicom.window": "40,400"})
    install_example("dicom")
    with pytest.raises(BadOption, match=r"did you mean dicom\.window"):
        es.create(tmp_path / "s", "embedstore/tiny", preprocess={"dicom.windo": "40,400"})
    assert not (tmp_path / "s").exists()


# ---- SQLite


def test_images_in_a_database_are_items(install_example, tmp_path):  # noqa: F811
    """Labels and columns are read; a uri reads its row again; a row without an image is a failure."""
    install_example("sqlite")
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as database:
        database.execute('CREATE TABLE "my photos" (image BLOB, label TEXT, year INTEGER)')
        database.execute("CREATE TABLE other (name TEXT)")
        rows = [(picture(n), "ab"[n % 2], 2000 + n) for n in range(4)] + [(None, "a", 1)]
        database.executemany('INSERT INTO "my photos" VALUES (?, ?, ?)', rows)
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed(path, progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (5, 4, {"missing": 1})
    rows = store.sql("SELECT uri, label, year FROM items ORDER BY year").rows
    assert rows[1] == (f"{path}#table=my%20photos&id=2", "b", 2001)
    assert read_location(rows[1][0]) == picture(1)
    assert store.embed(path, progress=False).unchanged == 4
    with sqlite3.connect(path) as database:
        database.execute('DELETE FROM "my photos" WHERE rowid = 2')
    assert store.embed(path, progress=False).missing == 1
    (tmp_path / "x.png").write_bytes(picture(9))
    assert store.embed(tmp_path, progress=False).missing == 0, "rows of a database are no files of its folder"


@pytest.mark.slow
@pytest.mark.parametrize("example", ["jpeg-xl", "dicom", "sqlite"])
def test_an_example_installs_by_pip_from_its_folder(example, tmp_path):
    """The built package has its module and its entry point."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    words = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site")]
    subprocess.run([sys.executable, *words, str(EXAMPLES / example)], check=True)
    names = sorted(p.name for p in (tmp_path / "site").iterdir())
    assert f"embedstore_{example.replace('-', '_')}.py" in names
    [info] = [p for p in (tmp_path / "site").iterdir() if p.suffix == ".dist-info"]
    assert "embedstore." in (info / "entry_points.txt").read_text()
