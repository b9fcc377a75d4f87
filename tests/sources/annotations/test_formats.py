"""YOLO, Pascal VOC, FiftyOne and tables of image folders: the same photos, classes and boxes as they write them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadAnnotations, BadManifest
from embedstore.media.image.crop import Box
from embedstore.media.image.decode import open_image
from embedstore.sources.annotations.options import AnnotationOptions
from embedstore.sources.annotations.yolo import parse_row
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.parts.part_uri import Moment, Page, PartUri, parse_part_uri
from embedstore.types import Failure, FailureReason, ImageRef
from tests.helpers.photos import write_photos


def opened(path: Path, *, crops: bool = False, images: Path | None = None):
    """Return the source of some annotations."""
    return open_source([] if images is None else images, annotations=AnnotationOptions((str(path),), crops=crops))


def items(source) -> list[tuple[str, str | None, str | None]]:
    """Return file name with fragment, label and split of the items."""
    return [(Path(r.uri).name, r.label, r.split) for r in source.scan() if isinstance(r, ImageRef)]


def colors(source) -> list[tuple[int, ...]]:
    """Return the last pixel of every item."""
    pictures = [open_image(read_location(ref.uri))[0] for ref in source.scan()]
    return [picture.getpixel((picture.width - 1, picture.height - 1)) for picture in pictures]


# ---- YOLO


def yolo(folder: Path) -> Path:
    """Write a data set of YOLO with two parts, and return its description."""
    write_photos(folder, "images/train/a.png", "images/train/b.png", "images/val/c.png")
    for name, text in {
        "train/a": "0 0.25 0.25 0.5 0.5\n1 0.75 0.25 0.5 0.5 0.9\n",
        "train/b": "1 0 0.5 0.5 0.5 0.5 1 0 1\n\n",
    }.items():
        path = folder / f"labels/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n")
    return folder / "data.yaml"


def test_yolo_gives_photos_with_splits_and_boxes_with_classes(tmp_path):
    """A photo without a label file is an item without a class; an outline gives its box."""
    path = yolo(tmp_path)
    assert items(opened(path)) == [("a.png", None, "train"), ("b.png", None, "train"), ("c.png", None, "val")]
    boxes = opened(path, crops=True)
    assert items(boxes) == [
        ("a.png#xywh=percent:0,0,50,50", "cat", "train"), ("a.png#xywh=percent:50,0,50,50", "dog", "train"),
        ("b.png#xywh=percent:0,50,50,50", "dog", "train"),
    ]  # fmt: skip
    assert colors(boxes) == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_a_folder_of_yolo_needs_no_description(tmp_path):
    """Classes are in classes.txt, splits in the names of folders; a description by Roboflow begins with ``../``."""
    path = yolo(tmp_path)
    path.unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert items(opened(tmp_path, crops=True))[0] == ("a.png#xywh=percent:0,0,50,50", "cat", "train")
    (tmp_path / "data.yaml").write_text("train: ../images/train\nnames: [cat, dog]\nnc: 2\n")
    assert [name for name, *_ in items(open_source(tmp_path / "data.yaml"))] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "row", ["0", "0 1 1", "x 0.5 0.5 1 1", "0.5 0.5 0.5 1 1", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "0 nan nan nan nan x"]
)
def test_rows_of_yolo_that_cannot_be_read_are_counted(tmp_path, row):
    """They cost no other box."""
    path = yolo(tmp_path)
    with (tmp_path / "labels/train/a.txt").open("a") as file:
        file.write(f"{row}\n")
    source = opened(path, crops=True)
    one = source.scan()
    assert (len(list(one)), one.summary.skipped) == (3, {"box that cannot be read": 1})


@given(st.lists(st.floats(), min_size=4, max_size=4), st.integers(0, 3))
def test_no_numbers_of_yolo_break_the_reader(numbers, number):
    """NaN and infinity give a box that is no crop, and never an error."""
    region = parse_row("a.png", " ".join(map(str, [number, *numbers])), {0: "cat"})
    assert region.problem or region.box is not None
    assert region.label == (None if region.problem else {0: "cat"}.get(number))


@pytest.mark.parametrize(
    ("text", "message"),
    [("names: [", "not readable YAML"), ("- 1", "does not describe a data set"), ("train: no\nnames: [a]", "SOURCE")],
)
def test_descriptions_of_yolo_that_cannot_be_used_are_one_line(tmp_path, text, message):
    """The message names the file and the cure."""
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(BadAnnotations, match=message):
        opened(tmp_path / "data.yaml")


# ---- Pascal VOC

VOC = """<annotation><filename>{name}</filename><size><width>40</width><height>40</height></size>
<object><name>cat</name><difficult>1</difficult><truncated>0</truncated>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>21</xmin><ymin>21</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>
</annotation>"""


def voc(folder: Path) -> Path:
    """Write a data set of Pascal VOC, and return its folder."""
    write_photos(folder, "JPEGImages/a.png", "JPEGImages/b.png")
    (folder / "Annotations").mkdir()
    (folder / "Annotations/a.xml").write_text(VOC.format(name="a.png"))
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("a 1\n")
    (folder / "ImageSets/Main/val.txt").write_text("b\n")
    return folder


def test_voc_counts_pixels_from_one_and_keeps_its_flags(tmp_path):
    """A photo without XML is an item; splits come from the lists of the data set."""
    folder = voc(tmp_path)
    assert items(opened(folder)) == [("a.png", None, "train"), ("b.png", None, "val")]
    boxes = opened(folder, crops=True)
    assert items(boxes) == [
        ("a.png#xywh=0,0,20,20", "cat", "train"), ("a.png#xywh=20,20,20,20", "dog", "train"),
    ]  # fmt: skip
    assert colors(boxes) == [(255, 0, 0), (255, 255, 255)]
    assert boxes.columns == {"categories": "VARCHAR[]", "difficult": "BOOLEAN", "truncated": "BOOLEAN"}
    assert items(opened(folder / "Annotations/a.xml", crops=True)) == items(boxes)
    for images in (folder, folder / "JPEGImages"):
        assert items(opened(folder, images=images)) == items(opened(folder))


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<annotation>", FailureReason.CORRUPT),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', FailureReason.CORRUPT),
        (
            '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>',
            FailureReason.CORRUPT,
        ),
        ("", FailureReason.EMPTY),
    ],
)
def test_xml_that_is_damaged_or_has_entities_is_one_failure(tmp_path, xml, reason):
    """The other photos are embedded."""
    folder = voc(tmp_path)
    (folder / "Annotations/b.xml").write_text(xml)
    entries = list(opened(folder).scan())
    assert [e.reason for e in entries if isinstance(e, Failure)] == [reason]
    assert len([e for e in entries if isinstance(e, ImageRef)]) == 2


# ---- FiftyOne


def fiftyone(folder: Path, **fields: object) -> Path:
    """Write what ``FiftyOneDataset`` writes for two samples, and return the file."""
    write_photos(folder, "data/a.png", "data/b.png")
    detections = [
        {"_cls": "Detection", "label": "cat", "bounding_box": [0.5, 0, 0.5, 0.5], "confidence": 0.8, "tags": []},
        {"_cls": "Detection", "label": "dog", "bounding_box": [0, 0.5, 0.5, 0.5], "mask": None},
    ]
    first = {
        "_id": {"$oid": "1"}, "filepath": "data/a.png", "tags": ["validation"], "weather": "sunny",
        "metadata": {"width": 40, "height": 40}, **fields,
        "ground_truth": {"_cls": "Detections", "detections": detections},
    }  # fmt: skip
    path = folder / "samples.json"
    path.write_text(json.dumps({"samples": [first, {"filepath": "data/b.png", "tags": []}]}))
    return path


def test_fiftyone_gives_detections_tags_and_fields(tmp_path):
    """Boxes are shares of the photo; the field ``ground_truth`` wins over predictions."""
    path = fiftyone(tmp_path, predictions={"_cls": "Detections", "detections": []})
    photos = opened(path)
    assert items(photos) == [("a.png", None, "val"), ("b.png", None, None)]
    assert photos.columns == {"categories": "VARCHAR[]", "weather": "VARCHAR"}
    boxes = opened(tmp_path, crops=True)
    assert items(boxes) == [
        ("a.png#xywh=percent:50,0,50,50", "cat", "val"), ("a.png#xywh=percent:0,50,50,50", "dog", "val"),
    ]  # fmt: skip
    assert colors(boxes) == [(0, 255, 0), (0, 0, 255)]
    assert boxes.columns == {"categories": "VARCHAR[]", "confidence": "DOUBLE"}


def test_classifications_of_fiftyone_are_labels(tmp_path):
    """Several fields of labels without ``ground_truth`` are refused, with the call that exports one."""
    path = fiftyone(tmp_path)
    samples = json.loads(path.read_text())
    samples["samples"][0]["animal"] = {"_cls": "Classification", "label": "cat"}
    del samples["samples"][0]["ground_truth"]
    path.write_text(json.dumps(samples))
    assert items(opened(path)) == [("a.png", "cat", "val"), ("b.png", None, None)]
    samples["samples"][1]["other"] = {"_cls": "Classification", "label": "x"}
    path.write_text(json.dumps(samples))
    with pytest.raises(BadAnnotations, match="select_fields"):
        opened(path)


# ---- tables of image folders


def test_the_table_of_an_image_folder_is_read_by_its_file_names(tmp_path):
    """Its folder is the split, and its other columns are kept."""
    write_photos(tmp_path / "train", "a.png", "b.png")
    (tmp_path / "train/metadata.jsonl").write_text(
        '{"file_name": "a.png", "label": "cat", "text": "x"}\n{"file_name": "b.png", "label": "dog"}\n'
    )
    source = opened(tmp_path / "train")
    assert items(source) == [("a.png", "cat", "train"), ("b.png", "dog", "train")]
    assert source.columns == {"text": "VARCHAR"}
    with pytest.raises(BadAnnotations, match="no boxes"):
        opened(tmp_path / "train", crops=True)
    (tmp_path / "train/metadata.jsonl").write_text('{"name": "a.png"}\n')
    with pytest.raises(BadManifest, match="file_name"):
        opened(tmp_path / "train")


def test_a_folder_of_photos_with_annotations_is_read_as_before_and_the_report_says_how_to_read_them(tmp_path):
    """Files next to photos do not change what a folder means."""
    folder = voc(tmp_path / "voc")
    es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")
    report = es.open(tmp_path / "s.store", device="cpu").embed(folder)
    assert (report.embedded, report.skipped_by_kind) == (2, {".xml": 1, ".txt": 2})
    assert any(f"--annotations {folder}" in notice for notice in report.notices)
    write_photos(tmp_path / "plain", "a.png")
    assert not open_source(tmp_path / "plain").notices


@pytest.mark.parametrize("options", [{"pages": True}, {"every": 1.0}, {"raw_pairs": "both"}, {"hidden": True}])
def test_options_for_folders_are_refused_with_a_table(tmp_path, options):
    """An option that would do nothing is an error."""
    write_photos(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("uri\na.png\n")
    store = es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")
    with pytest.raises(BadManifest, match="leave out --"):
        store.embed(tmp_path / "t.csv", **options)


# ---- uris of parts

FILES = st.sampled_from(
    ["/p/a.jpg", "/p/a#b.jpg", "s3://b/x.png", "tar://a.png::/x.tar", "/p/ä ö.pdf", "/p/a#t=1/b.jpg"]
)
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
PARTS = st.one_of(
    st.builds(Box, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.booleans()),
    st.integers(1, 10**8).map(Page),
    st.integers(0, 10**9).map(lambda ms: Moment(ms / 1000)),
)


@given(FILES, PARTS)
def test_the_uri_of_a_part_is_read_as_that_part(file, part):
    """Every part comes back from its uri."""
    assert parse_part_uri(str(PartUri(file, part))) == PartUri(file, part)


@pytest.mark.parametrize(
    "uri",
    [
        "/p/a.jpg",
        "/p/a.jpg#page=0",
        "/p/a#page=x",
        "/p/a#xywh=1,2,3",
        "/p/#t=5/x.jpg",
        "#page=1",
        "/a.pq#column=i&row=3",
    ],
)
def test_other_uris_are_no_parts(uri):
    """A fragment that means nothing is part of a name."""
    assert parse_part_uri(uri) is None


def test_a_file_whose_name_looks_like_a_part_is_a_file(tmp_path):
    """It is embedded and read as any other."""
    write_photos(tmp_path, "a.png#page=3")
    assert parse_part_uri(str(tmp_path / "a.png#page=3")) is None
    assert read_location(str(tmp_path / "a.png#page=3"))


def test_the_command_reads_annotations(tmp_path, capsys):
    """``--annotations`` and ``--crops``; the line says what was skipped."""
    from embedstore.cli import main

    folder = voc(tmp_path / "voc")
    es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")
    store = str(tmp_path / "s.store")
    for words, code in ((["--annotations", str(folder), "--crops"], 0), ([str(folder), "--crops"], 1)):
        with pytest.raises(SystemExit) as e:
            main(["embed", store, *words])
        assert e.value.code == code
    shown = capsys.readouterr()
    assert "2 embedded" in shown.out
    assert "name the file or folder of annotations with --annotations" in shown.err
