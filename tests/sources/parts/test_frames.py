"""Frames of videos: one item per time, read again by its uri alone."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadOption
from embedstore.media.image.decode import open_image
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.parts.options import PartOptions
from embedstore.sources.skip_rules import SkipRules
from embedstore.types import FailureReason
from tests.helpers.documents import BLUE, GREEN, RED, turn_video, write_sound, write_video
from tests.helpers.photos import write_photos
from tests.helpers.scans import scan

pytest.importorskip("av", reason="PyAV is not installed (extra video)")
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
STEADY = [(n * 10, (RED, GREEN, BLUE)[n // 10]) for n in range(30)]  # a color per second, ten frames each


def color(uri: str) -> tuple[int, ...]:
    """Return the middle pixel of a frame, each channel black or full."""
    picture = open_image(read_location(uri))[0]
    return tuple(255 * (channel > 127) for channel in picture.getpixel((picture.width // 2, picture.height // 2)))


def frames(path: Path, **options: object) -> list[str]:
    """Return the fragments of the frames of a video."""
    refs, failures = scan(open_source(path, rules=SkipRules(parts=PartOptions(**options))))
    assert failures == []
    return [ref.uri.removeprefix(f"{path}#") for ref in refs]


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mpeg4"), ("mp4", "libx264")]
)
def test_frames_are_taken_every_so_many_seconds(tmp_path, suffix, codec):
    """Each is the one that is shown then, in every container."""
    path = write_video(tmp_path / f"clip.{suffix}", STEADY, codec=codec)
    assert frames(path, every=1.0) == ["t=0", "t=1", "t=2"]
    assert frames(path) == ["t=0"]  # one every five seconds
    assert [color(f"{path}#t={t}") for t in (0, 0.9, 1, 1.95, 2, 2.9, 77)] == [RED, RED, GREEN, GREEN, BLUE, BLUE, BLUE]


def test_key_frames_are_those_that_are_stored_whole(tmp_path):
    """With ``every`` both are taken, each time once."""
    path = write_video(tmp_path / "clip.mp4", [(n * 10, RED) for n in range(30)], key_every=15)
    assert frames(path, key_frames=True) == ["t=0", "t=1.5"]
    assert frames(path, key_frames=True, every=1.0) == ["t=0", "t=1", "t=1.5", "t=2"]


TIMES = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(TIMES, st.integers(0, 400))
def test_of_a_variable_rate_the_frame_is_the_last_that_began(tmp_path_factory, gaps, at):
    """At any time, whatever the distances between frames."""
    starts = [sum(gaps[:n]) for n in range(len(gaps) + 1)]
    shades = [(WHITE, BLACK)[n % 2] for n in range(len(starts))]
    path = write_video(tmp_path_factory.mktemp("v") / "clip.mkv", list(zip(starts, shades, strict=True)), key_every=4)
    shown = max((n for n, start in enumerate(starts) if start <= at), default=0)
    assert color(f"{path}#t={at / 100}") == shades[shown]


def test_a_turned_video_is_upright(tmp_path):
    """A phone that is held upright stores its frames on their side."""
    path = write_video(tmp_path / "clip.mp4", STEADY)
    assert open_image(read_location(f"{path}#t=0"))[0].size == (64, 48)
    turn_video(path)
    assert open_image(read_location(f"{path}#t=0"))[0].size == (48, 64)


def test_a_quarter_turn_is_clockwise(tmp_path):
    """What is stored at the left is shown above."""
    import av
    import numpy as np

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:, :32] = RED
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    turn_video(path)
    picture = open_image(read_location(f"{path}#t=0"))[0]
    assert picture.getpixel((24, 8))[0] > 150 > picture.getpixel((24, 56))[0]


def test_frames_are_items_in_the_group_of_their_video(tmp_path):
    """A rescan opens nothing that is as before; a folder without the option counts videos and says so."""
    folder = tmp_path / "clips"
    path = write_video(folder / "cat/clip.mp4", STEADY)
    write_photos(folder / "cat", "IMG_1.jpg", "b.png")
    (folder / "cat/IMG_1.MOV").write_bytes(path.read_bytes())  # of a Live Photo
    store = es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")
    report = store.embed(folder, every=1.0)
    assert (report.scanned, report.embedded) == (5, 5)
    assert report.skipped_by_kind == {".mov paired with .jpg": 1}
    found = store.sql("SELECT uri, label, group_id FROM items WHERE contains(uri, '#t=') ORDER BY uri").rows
    assert found == tuple((f"{path}#t={t}", "cat", str(path)) for t in (0, 1, 2))
    again = store.embed(folder, every=1.0)
    assert (again.unchanged, again.missing) == (5, 0)
    report = store.embed(folder)
    assert (report.missing, report.skipped_by_kind) == (0, {".mp4": 1, ".mov": 1})
    assert any("--every SECONDS" in notice for notice in report.notices)
    assert store.verify(check_images=True).ok


def test_files_without_a_picture_are_one_failure_each(tmp_path):
    """Sound only, nothing, half a file and a text cost no other file."""
    folder = tmp_path / "clips"
    good = write_video(folder / "good.mp4", STEADY)
    write_sound(folder / "sound.mp4")
    (folder / "half.mp4").write_bytes(good.read_bytes()[:600])
    (folder / "empty.mkv").write_bytes(b"")
    (folder / "text.avi").write_text("no video at all")
    source = open_source(folder, rules=SkipRules(parts=PartOptions(every=1.0)))
    refs, failures = scan(source)
    assert len(refs) == 3
    assert {Path(f.uri).name: f.reason for f in failures} == {
        "sound.mp4": FailureReason.NOT_AN_IMAGE, "half.mp4": FailureReason.CORRUPT, "empty.mkv": FailureReason.EMPTY,
        "text.avi": FailureReason.CORRUPT,
    }  # fmt: skip


@pytest.mark.parametrize("every", [0, -1, float("nan"), float("inf"), 1e-9])
def test_a_distance_of_frames_that_is_no_time_is_refused(every):
    """The message says which times can be used."""
    with pytest.raises(BadOption, match="seconds"):
        PartOptions(every=every)
