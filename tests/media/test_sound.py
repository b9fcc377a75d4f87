"""Sounds to samples: every format, rate and number of channels; a reason for what is no sound."""

import io
import wave

import numpy as np
import pytest

from embedstore.errors import AudioError
from embedstore.media.audio.decode import decode_sound
from tests.helpers.sound_models import sound_file, tone

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")


def cosine(a, b):
    n = min(len(a), len(b))
    return float(a[:n] @ b[:n] / np.linalg.norm(a[:n]) / np.linalg.norm(b[:n]))


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", None), ("MP3", None), ("AIFF", None)],
)
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_is_the_same_in_every_format_and_rate(kind, subtype, rate):
    """Decoded and resampled to 16 kHz, the samples are those of the tone made at 16 kHz."""
    pure = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) * 0.5
    samples, info = decode_sound(sound_file(pure, rate=rate, kind=kind, subtype=subtype), 16000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert (info.format, info.width, samples.dtype) == (kind, 0, np.float32)
    assert abs(len(samples) - 16000) < 1200
    delays = range(0, 1200, 4) if kind == "MP3" else (0,)
    assert max(cosine(samples[d:], expected[: len(samples) - d]) for d in delays) > 0.99


def test_channels_are_averaged():
    """A stereo file is the mean of its channels."""
    left, right = tone(0.5, seed=1), tone(0.5, seed=2)
    samples, _ = decode_sound(sound_file(np.stack([left, right], axis=1), subtype="FLOAT"), 16000)
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (sound_file(np.zeros(0, np.float32)), "empty"),
        (sound_file(np.zeros(16000, np.float32)), "silent"),
        (sound_file(np.full(16000, 0.25, np.float32)), "silent"),
        (sound_file(np.full(16000, np.nan, np.float32), subtype="FLOAT"), "corrupt"),
        (sound_file(tone(1.0))[:20000], "truncated"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "corrupt"),
        (b"fLaC" + b"\x80" * 50, "corrupt"),
        (b"not a sound at all", "not_a_sound"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 100, "not_a_sound"),
        (b"\x1aE\xdf\xa3" + b"\0" * 100, "not_a_sound"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, "not_a_sound"),
    ],
)
def test_what_is_no_sound_has_a_reason(data, reason):
    """Zero samples, silence, damage, a part of a file, text, video and image."""
    with pytest.raises(AudioError) as caught:
        decode_sound(data, 16000)
    assert caught.value.reason == reason
    assert "\n" not in caught.value.detail


def test_a_video_is_named_with_the_command_that_helps():
    """The detail says how to get its sound."""
    with pytest.raises(AudioError, match=r"ffmpeg -i FILE sound\.flac"):
        decode_sound(b"\0\0\0\x20ftypmp42" + b"\0" * 50, 16000)


def test_a_wav_of_a_pipe_without_a_size_is_read():
    """Programs that stream write 0 or 0xFFFFFFFF as the size of the file."""
    data = bytearray(sound_file(tone(0.5)))
    for size in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        data[4:8] = size
        assert len(decode_sound(bytes(data), 16000)[0]) == 8000


def test_a_header_that_claims_more_than_the_limit_costs_no_memory():
    """A FLAC file whose header states 2^35 samples is refused after those that there are."""
    data = bytearray(sound_file(tone(0.5), kind="FLAC"))
    data[21] |= 0x0F  # the upper bits of the number of samples
    with pytest.raises(AudioError) as caught:
        decode_sound(bytes(data), 16000)
    assert caught.value.reason in ("truncated", "corrupt")


def test_a_sound_beyond_the_limit_is_refused(monkeypatch):
    """The detail names the minutes."""
    from embedstore.media.audio import decode

    monkeypatch.setattr(decode, "MAX_SECONDS", 1.0)
    monkeypatch.setattr(decode, "BLOCK_FRAMES", 4000)
    with pytest.raises(AudioError, match="cut it into several files"):
        decode_sound(sound_file(tone(2.0)), 16000)


def test_python_writes_what_is_read():
    """A file of the standard library, 8 bits and unsigned."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(((tone(0.5, rate=8000) * 100).astype(np.int16) + 128).astype(np.uint8).tobytes())
    assert len(decode_sound(data.getvalue(), 16000)[0]) == 8000
