"""Sounds whose bytes lie: headers that claim anything, bytes cut, flipped, joined, repeated. Samples or one reason."""

import struct
from collections import Counter

import numpy as np
import pytest

from embedstore.errors import AudioError, TextError
from embedstore.media.audio import decode, mpeg
from embedstore.media.audio.decode import decode_sound
from embedstore.media.audio.isolation import SoundDecoder
from embedstore.media.text.decode import decode_text
from tests.helpers.sound_models import sound_file, tone

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

KINDS = (
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "DOUBLE"), ("WAV", "GSM610"), ("WAV", "ULAW"), ("WAV", "MS_ADPCM"),
    ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None), ("AU", None), ("CAF", None),
    ("W64", None), ("RF64", None),
)  # fmt: skip
RATE = 16000
SECONDS = 0.3
TEN_HOURS = 10 * 3600 * 8000 * 2  # bytes of samples


@pytest.fixture(scope="module")
def decoder():
    decoder = SoundDecoder(RATE)
    yield decoder
    decoder.close()


def whole(kind, subtype):
    """Return an undamaged sound of 8 kHz, which every codec here takes."""
    return sound_file(tone(SECONDS, rate=8000), rate=8000, kind=kind, subtype=subtype)


def wave(*, channels=1, rate=8000, bits=16, align=2, samples=2400, stated=None):
    """Return a WAV file of samples, with any header."""
    data = (tone(samples / 8000, rate=8000) * 20000).astype(np.int16).tobytes()
    header = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    size = len(data) if stated is None else stated
    body = b"WAVEfmt " + header + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body) if stated is None else min(size + 36, 0xFFFFFFFE)) + body


def outcome(decoder, data):
    """Return the samples, or the error of ours; whatever else is raised is a defect."""
    try:
        samples, _ = decoder.decode(data)
    except AudioError as error:
        found = error
    else:
        found = samples
    if isinstance(found, AudioError):
        assert "\n" not in str(found)
        assert "object at" not in str(found)
        return found
    assert len(found)
    assert np.isfinite(found).all()
    return found


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (wave(channels=0), {"corrupt", "not_a_sound"}),
        (wave(rate=0), {"corrupt"}),
        (wave(rate=0xFFFFFFFF), {"corrupt", "too_large", "too_short"}),
        (wave(bits=0, align=0), {"corrupt", "not_a_sound"}),
        (wave(align=0), {"corrupt", "not_a_sound", None}),
        (wave(channels=65535, align=0xFFFF), {"corrupt", "not_a_sound", "empty"}),
        (wave(stated=TEN_HOURS), {"truncated"}),
        (wave(samples=0), {"empty"}),
    ],
)  # fmt: skip
def test_headers_that_lie(decoder, data, reasons):
    """No channel, no rate, no bits, 65,535 channels, ten hours in half a second: each ends with its reason."""
    found = outcome(decoder, data)
    assert (found.reason.value if isinstance(found, AudioError) else None) in reasons


def test_a_flac_header_of_ten_hours_costs_no_memory(decoder):
    """STREAMINFO that states ten hours has the reason of what is missing."""
    data = bytearray(whole("FLAC", None))
    count = 10 * 3600 * 8000
    data[21] = data[21] & 0xF0 | count >> 32
    data[22:26] = struct.pack(">I", count & 0xFFFFFFFF)
    found = outcome(decoder, bytes(data))
    assert isinstance(found, AudioError)
    assert found.reason.value in ("truncated", "corrupt")


@pytest.mark.parametrize("rate", [1, 2, 7, 50])
def test_a_rate_that_makes_hours_of_a_few_bytes_is_refused(decoder, rate, monkeypatch):
    """Samples at one per second would be resampled to gigabytes: the limit holds for the result too."""
    monkeypatch.setattr(decode, "memory_share", lambda most, part: 1_000_000)
    with pytest.raises(AudioError, match=r"cut it into several files") as caught:
        decode_sound(wave(rate=rate, samples=2400), RATE)
    assert caught.value.reason.value == "too_large"


def test_a_rate_of_which_nothing_is_left_is_too_short(decoder):
    """2,400 samples at 800 million per second are three millionths of a second: no sample at 16 kHz."""
    data = wave(rate=800_000_000)
    with pytest.raises(AudioError, match="2,400 samples at 800,000,000 per second") as caught:
        decoder.decode(data)
    assert caught.value.reason.value == "too_short"


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_an_undamaged_sound_of_each_kind_is_right(decoder, kind, subtype):
    """The tone has its length, its pitch and its strength in every container and codec."""
    samples = outcome(decoder, whole(kind, subtype))
    assert len(samples) == pytest.approx(SECONDS * RATE, rel=0.35)  # MP3 and GSM fill their last block
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * RATE / len(samples) == pytest.approx(440, abs=8)
    assert 0.15 < np.sqrt(np.mean(samples**2)) < 0.45


def damaged(data, other, rng):
    """Return bytes after one kind of damage: cut, flipped, a run of one value, joined with another, or repeated."""
    data = np.frombuffer(data, np.uint8).copy()
    match rng.integers(0, 6):
        case 0:
            return data[: rng.integers(0, len(data))].tobytes()
        case 1:
            at = rng.integers(0, len(data), rng.integers(1, 30))
            data[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
        case 2:  # the header, where numbers are
            at = rng.integers(0, min(64, len(data)), rng.integers(1, 6))
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF], len(at))
        case 3:
            begin = rng.integers(0, len(data))
            data[begin : begin + rng.integers(1, 400)] = rng.integers(0, 256)
        case 4:
            cut = rng.integers(0, len(data))
            return data[:cut].tobytes() + other[rng.integers(0, len(other)) :]
        case _:
            begin, end = sorted(rng.integers(0, len(data), 2).tolist())
            return data[:end].tobytes() + data[begin:].tobytes()
    return data.tobytes()


@pytest.mark.parametrize("count", [150, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_damaged_sounds_of_every_kind(decoder, count, capfd):
    """Seed 2026: every file ends with finite samples or with one line; nothing is printed, no decoder hangs or dies.

    A quarter of the files are two sounds, one after the other, before the damage.
    """
    rng = np.random.default_rng(2026)
    files = [whole(kind, subtype) for kind, subtype in KINDS]
    bare = files[KINDS.index(("MP3", None))]
    files.append(bare[mpeg.read_frame(bare, 0).length :])  # without the header that states its frames
    reasons = Counter()
    for _ in range(count):
        first, second, other = (files[n] for n in rng.integers(0, len(files), 3))
        data = first + second if rng.random() < 0.25 else first
        found = outcome(decoder, damaged(data, other, rng))
        reasons[found.reason.value if isinstance(found, AudioError) else "samples"] += 1
    assert capfd.readouterr() == ("", "")
    assert reasons["samples"] > count / 20
    assert {"corrupt", "truncated"} <= set(reasons)
    assert not {"timed_out", "crashed"} & set(reasons)


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_damaged_texts(count):
    """Seed 2026: a text in any encoding, damaged in any way, is a text that UTF-8 can hold, or one line."""
    rng = np.random.default_rng(2026)
    words = "Grüße, 猫と犬 \U0001f408 and a dog.\n" * 4
    files = [words.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-7", "gb18030")]
    reasons, lines = Counter(), set()
    for _ in range(count):
        first, second = (files[n] for n in rng.integers(0, len(files), 2))
        try:
            text = decode_text(damaged(first, second, rng))
        except TextError as error:
            reasons[error.reason.value] += 1
            lines.add(str(error).count("\n"))
        else:
            reasons["text"] += 1
            assert text.strip()
            assert text.encode()
    assert lines == {0}
    assert set(reasons) <= {"text", "not_a_text", "empty", "blank"}
    assert min(reasons["text"], reasons["not_a_text"]) > count / 20
