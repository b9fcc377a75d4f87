"""COCO's JSON: photos with classes and captions, and crops that are read again by their uri alone."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadAnnotations, SourceNotFound
from embedstore.media.image.decode import open_image
from embedstore.sources.annotations.options import AnnotationOptions
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.types import Failure, FailureReason
from tests.helpers.photos import SIDE, quartered, write_photos
from tests.helpers.scans import scan

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def image(key: int, name: str, width: int = SIDE, height: int = SIDE) -> dict:
    """Return an entry of ``images``."""
    return {"id": key, "file_name": name, "width": width, "height": height}


def box(photo: int, category: int, *numbers: float, **more: object) -> dict:
    """Return an entry of ``annotations``."""
    return {"id": 1, "image_id": photo, "category_id": category, "bbox": list(numbers), "iscrowd": 0, **more}


def write(path: Path, images: list[dict], annotations: list[dict], categories: list[dict] = CATEGORIES) -> Path:
    """Write a file of annotations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {}, "annotations": annotations, "images": images, "categories": categories}))
    return path


def crops(*paths: Path, images: Path | None = None):
    """Return the source of the crops of annotations."""
    options = AnnotationOptions(tuple(map(str, paths)), crops=True)
    return open_source([] if images is None else images, annotations=options)


def rows(store: es.Store, columns: str) -> list[tuple]:
    """Return columns of the present items by the name of their file."""
    found = store.sql(f"SELECT parse_filename(uri), {columns} FROM items WHERE present ORDER BY uri")
    return [tuple(row.values()) for row in found.arrow().to_pylist()]


@pytest.fixture
def store(tmp_path):
    return es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")


def test_photos_have_one_label_where_each_shows_one_class(tmp_path, store):
    """A photo without annotations has none; a crowd and a box without area still say what is on the photo."""
    write_photos(tmp_path / "images", "a.png", "b.png", "c.png")
    path = write(
        tmp_path / "coco.json",
        [image(1, "a.png"), image(2, "b.png"), image(3, "c.png")],
        [box(1, 3, 0, 0, 5, 5), box(1, 3, 1, 1, 0, 0), box(2, 7, 0, 0, 9, 9, iscrowd=1)],
    )
    report = store.embed(path)
    assert (report.scanned, report.embedded, report.skipped) == (3, 3, 0)
    assert rows(store, "label, group_id") == [("a.png", "cat", None), ("b.png", "dog", None), ("c.png", None, None)]


def test_photos_with_several_classes_have_a_list_and_the_report_says_so(tmp_path, store):
    """No photo has a label then: a label of some would be a biased choice."""
    write_photos(tmp_path, "a.png", "b.png", "c.png")
    images = [image(1, "a.png"), image(2, "b.png"), image(3, "c.png")]
    path = write(tmp_path / "coco.json", images, [box(1, 7, 0, 0, 5, 5), box(1, 3, 0, 0, 5, 5), box(2, 3, 0, 0, 5, 5)])
    report = store.embed(tmp_path, annotations=[str(path)])
    assert any("1 photo shows objects of several classes" in n and "categories" in n for n in report.notices)
    assert [(n, label, list(c)) for n, label, c in rows(store, "label, categories")] == [
        ("a.png", None, ["cat", "dog"]), ("b.png", None, ["cat"]), ("c.png", None, []),
    ]  # fmt: skip


def test_captions_and_instances_of_two_files_meet_at_the_photo(tmp_path, store):
    """Captions are a list column; ids differ between the files."""
    write_photos(tmp_path / "val2017", "a.png", "b.png")
    boxes = write(
        tmp_path / "annotations/instances_val2017.json", [image(1, "a.png"), image(2, "b.png")], [box(2, 3, 0, 0, 5, 5)]
    )
    said = [{"id": 1, "image_id": 9, "caption": "A cat."}, {"id": 2, "image_id": 9, "caption": "Es sitzt."}]
    captions = write(tmp_path / "annotations/captions_val2017.json", [image(9, "b.png")], said, [])
    report = store.embed(annotations=[str(boxes), str(captions)])
    assert (report.scanned, report.embedded) == (2, 2)
    found = rows(store, "label, split, captions")
    assert found[0][:3] == ("a.png", None, "val")
    assert (*found[1][:3], list(found[1][3])) == ("b.png", "cat", "val", ["A cat.", "Es sitzt."])


def test_crops_are_items_of_their_own_in_the_group_of_their_photo(tmp_path, store):
    """The uri is that of W3C's Media Fragments, and other values of the annotation are columns."""
    photo = str(write_photos(tmp_path, "a.png") / "a.png")
    path = write(
        tmp_path / "coco.json",
        [image(1, "a.png")],
        [box(1, 3, 0, 0, 20, 20, score=0.5), box(1, 7, 20.5, 20, 10, 10, attributes={"occluded": True})],
    )
    report = store.embed(path, crops=True)
    assert (report.scanned, report.embedded, report.skipped) == (2, 2, 0)
    found = store.sql("SELECT uri, label, group_id, score, occluded FROM items ORDER BY uri").df()
    assert found["uri"].tolist() == [f"{photo}#xywh=0,0,20,20", f"{photo}#xywh=20.5,20,10,10"]
    assert found["label"].tolist() == ["cat", "dog"]
    assert set(found["group_id"]) == {photo}
    assert found["score"].tolist()[0] == 0.5
    assert found["occluded"].tolist()[1]
    again = store.embed(path, crops=True)
    assert (again.unchanged, again.embedded) == (2, 0)


@pytest.mark.parametrize(
    ("numbers", "color"),
    [((0, 0, 20, 20), (255, 0, 0)), ((20, 0, 20, 20), (0, 255, 0)), ((0, 20, 20, 20), (0, 0, 255)),
     ((30, 30, 99, 99), (255, 255, 255)), ((19.5, 1, 0.4, 5), (255, 0, 0))],
)  # fmt: skip
def test_a_crop_has_the_pixels_of_its_box(tmp_path, numbers, color):
    """Also where the box reaches beyond the photo or is narrower than a pixel."""
    write_photos(tmp_path, "a.png")
    path = write(tmp_path / "coco.json", [image(1, "a.png")], [box(1, 3, *numbers)])
    (ref,), _ = scan(crops(path))
    picture, info = open_image(read_location(ref.uri))
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == color
    assert (info.width, info.height) == picture.size
    assert list(crops(path).read([ref])) == [read_location(ref.uri)]


def test_boxes_refer_to_the_upright_photo(tmp_path):
    """A photo that is stored on its side is turned first, as programs for annotation show it."""
    (tmp_path / "a.jpg").write_bytes(quartered(orientation=6, form="JPEG"))
    path = write(tmp_path / "coco.json", [image(1, "a.jpg")], [box(1, 3, 22, 2, 16, 16)])
    (ref,), _ = scan(crops(path))
    red, green, blue = open_image(read_location(ref.uri))[0].getpixel((8, 8))
    assert (red > 200, green < 60, blue < 60) == (
        True,
        True,
        True,
    )  # stored at the upper left, shown at the upper right


BAD_BOXES = [
    ([1, 2, 3], "box that cannot be read"), (["a", 1, 1, 1], "box that cannot be read"),
    ([None] * 4, "box that cannot be read"), ([1, 1, 0, 5], "empty box"), ([1, 1, 5, -2], "empty box"),
    ([1e-9, 0, 1e-9, 5], "empty box"),
    ([SIDE, 0, 5, 5], "box outside its photo"), ([0, -9, 5, 5], "box outside its photo"),
]  # fmt: skip


@pytest.mark.parametrize(("numbers", "kind"), BAD_BOXES)
def test_a_box_that_is_no_crop_is_counted_by_its_reason(tmp_path, store, numbers, kind):
    """Items, failures and what was skipped add up to the boxes that were found."""
    write_photos(tmp_path, "a.png")
    path = write(tmp_path / "coco.json", [image(1, "a.png")], [box(1, 3, *numbers), box(1, 7, 0, 0, 9, 9)])
    report = store.embed(path, crops=True)
    assert (report.scanned, report.embedded, report.skipped_by_kind) == (1, 1, {kind: 1})


BOXES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([3, 7, 8]),
        st.lists(st.sampled_from([-5, 0, 10, 10.5, 39, 40, 100]), min_size=3, max_size=4),
        st.booleans(),
    ),
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(BOXES)
def test_every_box_is_an_item_a_failure_or_skipped(tmp_path_factory, boxes):
    """Whatever boxes a file has: photo 3 does not exist, photo 4 is not listed, category 8 has no name."""
    folder = write_photos(tmp_path_factory.mktemp("coco"), "1.png", "2.png")
    images = [image(n, f"{n}.png") for n in (1, 2, 3)]
    found = [box(photo, category, *numbers, iscrowd=crowd) for photo, category, numbers, crowd in boxes]
    source = crops(write(folder / "coco.json", images, found))
    one = source.scan()
    entries = list(one)
    assert len(entries) + one.summary.skipped.total() == len(boxes)
    assert len({entry.uri for entry in entries}) == len(entries)
    for entry in entries:
        if isinstance(entry, Failure):
            assert (entry.reason, "/3.png#" in entry.uri) == (FailureReason.MISSING, True)
        else:
            open_image(read_location(entry.uri))


def test_two_classes_of_one_box_are_one_crop_with_a_list(tmp_path):
    """The second is counted as a repeated box."""
    write_photos(tmp_path, "a.png")
    path = write(tmp_path / "c.json", [image(1, "a.png")], [box(1, 3, 0, 0, 9, 9), box(1, 7, 0, 0, 9, 9)])
    source = crops(path)
    one = source.scan()
    (ref,) = list(one)
    assert (ref.label, one.summary.skipped) == (None, {"repeated box": 1})


def test_a_photo_that_is_damaged_is_one_failure_per_crop(tmp_path, store):
    """The reason is that of the photo; the run goes on."""
    write_photos(tmp_path, "a.png", "b.png")
    (tmp_path / "a.png").write_bytes(quartered()[:60])
    path = write(tmp_path / "c.json", [image(1, "a.png"), image(2, "b.png")], [box(n, 3, 0, 0, 9, 9) for n in (1, 2)])
    report = store.embed(path, crops=True)
    assert (report.embedded, report.failures) == (1, 1)


def test_everything_after_the_source_reads_crops(tmp_path, store):
    """Verification, re-embedding, searches by image and contact sheets know nothing of crops."""
    write_photos(tmp_path, "a.png", "b.png")
    images = [image(1, "a.png"), image(2, "b.png")]
    path = write(tmp_path / "c.json", images, [box(n, 3, x, 0, 15, 15) for n in (1, 2) for x in (0, 20)])
    store.embed(path, crops=True)
    assert store.verify(check_images=True).ok
    store.add_space("timm/test_resnet.r160_in1k", space_name="other", random_init=True)
    assert store.reembed("other").embedded == 4
    first = store.sql("SELECT uri FROM items ORDER BY item LIMIT 1").df()["uri"][0]
    hits = store.search(image=first, k=4)
    assert first in [hit.uri for hit in hits if hit.score > 0.999]
    assert "data:image" in hits._repr_html_()


def test_a_scan_of_the_folder_says_nothing_of_crops(tmp_path, store):
    """They stay present: a folder is complete for files, not for boxes."""
    write_photos(tmp_path / "p", "a.png")
    path = write(tmp_path / "c.json", [image(1, "p/a.png")], [box(1, 3, 0, 0, 9, 9)])
    store.embed(path, crops=True)
    report = store.embed(tmp_path / "p")
    assert (report.embedded, report.missing) == (1, 0)


def test_crops_and_photos_of_one_photo_stay_in_one_split(tmp_path, store):
    """An evaluation over photos and crops of them cannot leak, whichever of them was embedded first."""
    from embedstore.classify.data.features import load_features

    photos = write_photos(tmp_path / "p", "cat/1.png", "dog/2.png")
    images = [image(1, "cat/1.png"), image(2, "dog/2.png")]
    boxes = [box(n, category, x, 0, 15, 15) for n, category in ((1, 3), (2, 7)) for x in (0, 20)]
    store.embed(photos)
    store.embed(photos, annotations=[str(write(tmp_path / "c.json", images, boxes))], crops=True)
    storage = store._session.storage
    groups = load_features(storage, storage.space(), "label").groups
    assert len(groups) == 6
    assert sorted(Counter(groups.tolist()).values()) == [3, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "is not valid JSON"),
        ('{"images": [{"id": 1}]}', "has no file_name"),
        ('{"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}', "have the same id 1"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "images": []}', "have the same id 1"),
        ('{"images": [{"id": 1, "file_name": "nowhere.png"}]}', "name the folder of the photos as SOURCE"),
        ('{"something": 1}', "holds no annotations that are known"),
        ("[]", "holds no annotations that are known"),
    ],
)
def test_annotations_that_cannot_be_used_are_one_line(tmp_path, text, message):
    """The message names the file and the cure."""
    write_photos(tmp_path, "a.png", "b.png")
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(BadAnnotations) as e:
        open_source([], annotations=AnnotationOptions((str(path),)))
    assert message in str(e.value)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_annotations_and_sources_that_do_not_fit_are_refused(tmp_path):
    """Crops without boxes, several folders, and annotations that are not there."""
    write_photos(tmp_path / "p", "a.png")
    path = write(tmp_path / "c.json", [image(1, "p/a.png")], [])
    with pytest.raises(BadAnnotations, match="--annotations"):
        open_source(tmp_path / "p", annotations=AnnotationOptions((), crops=True))
    with pytest.raises(BadAnnotations, match="one folder"):
        open_source([tmp_path, tmp_path / "p"], annotations=AnnotationOptions((str(path),)))
    with pytest.raises(SourceNotFound):
        open_source([], annotations=AnnotationOptions((str(tmp_path / "no.json"),)))


def test_splits_come_from_files_and_folders_unless_none_are_wanted(tmp_path):
    """Names of photos come before the name of the file."""
    write_photos(tmp_path, "test/a.png", "b.png")
    path = write(tmp_path / "instances_train2017.json", [image(1, "test/a.png"), image(2, "b.png")], [])
    options = AnnotationOptions((str(path),))
    assert [r.split for r in open_source([], annotations=options).scan()] == ["test", "train"]
    assert [r.split for r in open_source([], annotations=options, split_rule=None).scan()] == [None, None]


def test_the_export_of_lightly_studio_is_read(tmp_path):
    """It names photos by absolute paths, counts classes from 0, and writes no crowds."""
    write_photos(tmp_path / "photos", "a.png", "b.png")
    content = {
        "images": [
            {"id": n, "file_name": str(tmp_path / f"photos/{name}.png"), "width": SIDE, "height": SIDE}
            for n, name in enumerate("ab")
        ],
        "categories": [{"id": 0, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [0.0, 0.0, 9.0, 9.0]}],
    }
    path = tmp_path / "elsewhere/coco_export.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    refs, failures = scan(open_source(path))
    assert failures == []
    assert [(Path(r.uri).name, r.label) for r in refs] == [("a.png", None), ("b.png", "cat")]
    assert [r.uri for r in crops(path).scan()] == [f"{tmp_path}/photos/b.png#xywh=0,0,9,9"]


@pytest.mark.slow
def test_a_large_file_is_read_in_flat_memory(tmp_path):
    """Half a million boxes with outlines, 150 MB of JSON, in less than 250 MB more."""
    import resource

    write_photos(tmp_path, "a.png")
    outline = [[float(n) for n in range(40)]]
    with (tmp_path / "big.json").open("w") as file:
        file.write(
            '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "x"}], "annotations": ['
        )
        for n in range(500_000):
            file.write("," * bool(n))
            file.write(json.dumps(box(1, 1, n % 39, n % 37, 1 + n % 3, 1, segmentation=outline)))
        file.write("]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = crops(tmp_path / "big.json").scan()
    assert sum(1 for _ in one) + one.summary.skipped.total() == 500_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10
