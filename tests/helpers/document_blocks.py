"""The code blocks of README and documentation, and the folder in which they run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import embedstore as es
from tests.conftest import ROOT, picture
from tests.helpers.documents import BLUE, GREEN, RED, write_pdf, write_video

DOCUMENTS = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
ITEMS = 132
REVIEWS = ("The delivery was late.", "Quick delivery, good box.", "The box was broken.", "I like it.")


def blocks(name: str, language: str) -> list[str]:
    """Return the code blocks of a document in a language, in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell_commands(name: str) -> Iterator[str]:
    """Yield the commands of the shell blocks of a document, without comments; a pipe is one command."""
    for block in blocks(name, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"(^|\s)#\s.*", "", line)
            yield from (" ".join(part.split()) for part in command.split("&&") if part.strip())


def write_photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Write images as ``train|val|test/<cat|dog>/N.png`` and return their paths."""
    paths = []
    for n in range(first, first + count):
        path = folder / ("train", "train", "val", "test")[n % 4] / ("cat", "dog")[n // 4 % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n, (24, 20)).save(path)
        paths.append(path)
    return paths


def write_copy(path: Path) -> Path:
    """Write the pixels of an image as other bytes into another split."""
    copy = path.parents[2] / "test" / path.parent.name / f"{path.stem}-copy{path.suffix}"
    with Image.open(path) as image:
        image.save(copy, compress_level=0)
    return copy


def write_table(path: Path, rows: Sequence[dict[str, object]], encoding: str = "utf-8") -> Path:
    """Write a CSV file."""
    with path.open("w", newline="", encoding=encoding) as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def prepare_pets(folder: Path, backbone: str) -> None:
    """Make photos, their table and ``pets.store``, whose items have every column that the documents name."""
    rows: list[dict[str, object]] = []
    photos = write_photos(folder / "photos", ITEMS)
    for n, path in enumerate([*photos, write_copy(photos[0])]):
        species, split = path.parent.name, path.parent.parent.name
        rows.append({
            "uri": path, "label": species, "species": species, "split": split, "year": 2015 + n % 8, "age": 3 + n % 9,
            "grade": n % 3, "camera": ("a", "b", "a", "b", "X100")[n // 4 % 5],
            "caption": f"invoice {4700 + n} of a {species}",
            "tags": ("outdoors;dog", "indoors", "outdoors", "indoors;dog")[n % 4],
        })  # fmt: skip
    write_table(folder / "photos.csv", rows)
    write_table(folder / "labels.csv", [{"item": 1, "checked": "yes"}, {"item": 2, "checked": "no"}])
    with es.create(folder / "pets.store", backbone, space_name="resnet50", device="cpu") as store:
        store.embed(folder / "photos.csv", progress=False)
    picture(3, (24, 20)).save(folder / "query.jpg")
    picture(7, (24, 20)).save(folder / "blurred.jpg")
    write_photos(folder / "new-photos", 2, first=ITEMS)
    for other in ("people", "scans", "photos", "downloaded"):
        shutil.copytree(folder / "pets.store", folder / f"{other}.store")


def prepare_files(folder: Path) -> None:
    """Make the files that pages on sources and vectors name."""
    vectors = np.random.default_rng(0).standard_normal((ITEMS, 8)).astype(np.float32)
    for name in ("vectors.npy", "clip.npy"):
        np.save(folder / name, vectors)
    for name, column in (("meta.csv", "uri"), ("paths.csv", "image_path")):
        write_table(folder / name, [{column: f"/elsewhere/{n}.png", "label": "ab"[n % 2]} for n in range(ITEMS)])
    frames = [(n * 10, (RED, GREEN, BLUE)[n % 3]) for n in range(12)]
    for path in (folder / "papers" / "a.pdf", folder / "paper.pdf"):
        write_pdf(path, [RED, BLUE])
    for path in (folder / "clips" / "a.mp4", folder / "clip.mp4"):
        write_video(path, frames)
    names = []
    for path in write_photos(folder / "val2017", 6, first=ITEMS + 9):
        names.append(path.name)
        path.rename(folder / "val2017" / path.name)
    for path in [p for p in (folder / "val2017").iterdir() if p.is_dir()]:
        shutil.rmtree(path)
    write_coco(folder / "annotations", names)


def write_coco(folder: Path, names: Sequence[str]) -> None:
    """Write boxes and captions of images as COCO does."""
    folder.mkdir()
    images = [{"id": n, "file_name": name, "width": 24, "height": 20} for n, name in enumerate(names, 1)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 12, 12]} for n in range(1, len(names) + 1)]
    captions = [{"id": n, "image_id": n, "caption": f"picture {n}"} for n in range(1, len(names) + 1)]
    kinds = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "instances_val2017.json").write_text(json.dumps(kinds))
    (folder / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))


def prepare_texts(folder: Path) -> None:
    """Make the tables and files of texts that the page on texts names."""
    rows = [
        {"text": f"{REVIEWS[n % 4]} It is number {n}.", "sentiment": ("bad", "good")[n % 2], "stars": 1 + n % 5,
         "topic": ("box", "price", "")[n % 3]}
        for n in range(24)
    ]  # fmt: skip
    write_table(folder / "reviews.csv", rows)
    write_table(folder / "new.csv", rows[:3])
    write_table(folder / "old.csv", rows[3:6], encoding="latin-1")
    (folder / "complaint.txt").write_text(REVIEWS[0])
    for place in ("notes", "new"):
        (folder / place).mkdir()
        for n, text in enumerate(REVIEWS):
            (folder / place / f"{n}.txt").write_text(f"{text} In a note.")


def prepare_sounds(folder: Path) -> None:
    """Make a folder of sounds of two labels."""
    from tests.helpers.sound_models import sound_file, tone

    for n in range(12):
        path = folder / "calls" / ("owl", "frog")[n % 2] / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound_file(tone(0.2, pitch=200 + 30 * n)))
