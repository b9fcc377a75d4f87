"""FiftyOne and LightlyStudio themselves: they read what `export` writes, and `embed` reads what they export.

Both are large and bring a server, so they live in environments of their own: EMBEDSTORE_FIFTYONE_PYTHON and
EMBEDSTORE_LIGHTLY_PYTHON name the interpreters. FiftyOne's database does not start here; its own readers of the two
files of a data set, and its samples, need none.
"""

import json
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

import embedstore as es

READ_SAMPLES = """
import json, sys
import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.utils.data as readers
folder = sys.argv[1]
readers.FiftyOneDatasetImporter(dataset_dir=folder)
fields = odm.import_document(f"{folder}/metadata.json")["sample_fields"]
samples = [fo.Sample.from_dict(d) for d in odm.import_collection(f"{folder}/samples.json", key="samples")[0]]
print(json.dumps([sorted(fields), [
    [s.filepath, s.label.label if s.label else None, s.tags, s.embedding.tolist(), s["year"]] for s in samples
]]))
"""

EXPORT_BOXES = """
import sys
from pathlib import Path
import lightly_studio as studio
from lightly_studio import db_manager
folder = Path(sys.argv[1])
db_manager.connect(db_file=str(folder / "studio.db"))
boxes = studio.ImageDataset.create("boxes")
boxes.add_samples_from_coco(
    annotations_json=folder / "boxes.json", images_path=folder / "photos", embed=False, embed_annotations=False
)
boxes.export().to_coco_object_detections(output_json=folder / "exported-boxes.json")
captions = studio.ImageDataset.create("captions")
captions.add_samples_from_coco_caption(
    annotations_json=folder / "captions.json", images_path=folder / "photos", embed=False
)
captions.export().to_coco_captions(output_json=folder / "exported-captions.json")
"""


def run(variable, program, *words):
    """Run a program with the interpreter that a variable names; skip without one."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no interpreter")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [python, "-c", program, *map(str, words)], check=True, capture_output=True, text=True, env=environment, cwd="/"
    ).stdout


def photos(folder):
    """Write four photos, one of them in a folder below, and return their names."""
    names = ["0.jpg", "1.jpg", "2.jpg", "a/3.jpg"]
    for n, name in enumerate(names):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (60 * n, 9, 9)).save(path)
    return names


def test_fiftyone_reads_an_export(tmp_path):
    """Files, labels, splits as tags, columns and vectors are what the store has."""
    names = photos(tmp_path)
    store = es.create(tmp_path / "s")
    X = np.eye(4, dtype=np.float32) + 0.25
    uris = [str(tmp_path / "photos" / name) for name in names]
    table = {
        "uri": uris,
        "label": ["cat", "dog", None, "cat"],
        "split": ["train", "test", "val", None],
        "year": [1, 2, 3, 4],
    }
    store.add_vectors(X, table)
    store.export(tmp_path / "out", file_format="fiftyone")
    fields, samples = json.loads(run("EMBEDSTORE_FIFTYONE_PYTHON", READ_SAMPLES, tmp_path / "out").splitlines()[-1])
    assert {"filepath", "label", "tags", "embedding", "year"} <= set(fields)
    assert [s[:3] for s in samples] == [
        [uris[0], "cat", ["train"]],
        [uris[1], "dog", ["test"]],
        [uris[2], None, ["val"]],
        [uris[3], "cat", []],
    ]
    np.testing.assert_array_equal([s[3] for s in samples], X)
    assert [s[4] for s in samples] == [1, 2, 3, 4]


def test_exports_of_lightly_studio_are_embedded(tmp_path):
    """Boxes and captions that the program read and wrote itself."""
    images = [{"id": n, "file_name": name, "width": 64, "height": 48} for n, name in enumerate(photos(tmp_path))]
    boxes = [(0, 1, [1, 2, 30, 20]), (0, 2, [30, 20, 10, 10]), (3, 2, [0, 0, 64, 48])]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for n, (i, c, b) in enumerate(boxes)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    words = [{"id": n, "image_id": i, "caption": c} for n, (i, c) in enumerate([(0, "one"), (0, "two"), (2, "three")])]
    (tmp_path / "boxes.json").write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": words}))
    run("EMBEDSTORE_LIGHTLY_PYTHON", EXPORT_BOXES, tmp_path)
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    store.embed(annotations=tmp_path / "exported-boxes.json", crops=True, progress=False)
    store.embed(annotations=tmp_path / "exported-captions.json", progress=False)
    photo = str(tmp_path / "photos")
    assert dict(store.sql("SELECT uri, label FROM items WHERE uri LIKE '%xywh%'").rows) == {
        f"{photo}/0.jpg#xywh=1,2,30,20": "cat",
        f"{photo}/0.jpg#xywh=30,20,10,10": "dog",
        f"{photo}/a/3.jpg#xywh=0,0,64,48": "dog",
    }
    assert dict(store.sql("SELECT uri, captions FROM items WHERE len(captions) > 0").rows) == {
        f"{photo}/0.jpg": ["one", "two"],
        f"{photo}/2.jpg": ["three"],
    }
