"""A sound that breaks its decoder costs only itself: processes of their own, reasons, and nothing on the terminal."""

import os
import subprocess
import time

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import AudioError
from embedstore.media.audio import isolation
from embedstore.media.audio.decode import decode_sound
from embedstore.media.audio.isolation import SoundDecoder, is_plain_wave
from tests.helpers.sound_models import save_sound_model, sound_file, tone

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

FORMATS = ("MP3", "OGG", "FLAC", "AIFF", "WAV", "AU")


@pytest.fixture
def decoder():
    decoder = SoundDecoder(16000)
    yield decoder
    decoder.close()


def damaged(kind, count, seed=0):
    """Yield a sound with flipped bytes, cut off, or both."""
    whole, draw = np.frombuffer(sound_file(tone(0.4), kind=kind), np.uint8), np.random.default_rng(seed)
    for n in range(count):
        data = whole.copy()
        if n % 3 != 0:
            at = draw.integers(0, len(data), draw.integers(1, 40))
            data[at] = draw.integers(0, 256, len(at))
        yield (data if n % 3 == 1 else data[: draw.integers(0, len(data))]).tobytes()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_another_process_gives_the_same_samples(decoder, kind):
    """Samples, format and rate are those of decoding here."""
    data = sound_file(tone(0.5, rate=8000), rate=8000, kind=kind)
    (samples, info), (expected, facts) = decoder.decode(data), decode_sound(data, 16000)
    np.testing.assert_array_equal(samples, expected)
    assert info == facts


def test_only_plain_waves_are_decoded_here():
    """Integers and floats of a WAV file need no decoder; every codec and every other container has one."""
    assert is_plain_wave(sound_file(tone(0.1), subtype="PCM_16"))
    assert is_plain_wave(sound_file(tone(0.1), subtype="FLOAT"))
    others = [("WAV", "GSM610"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("FLAC", None), ("MP3", None), ("AIFF", None)]
    assert not any(is_plain_wave(sound_file(tone(0.1), kind=kind, subtype=subtype)) for kind, subtype in others)
    assert not is_plain_wave(b"RIFF\0\0\0\0WAVE")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_sounds_are_samples_or_a_reason(decoder, kind, count, capfd):
    """Whatever bytes are flipped or missing: finite samples or one line, no other error, and nothing is printed."""
    messages = []
    for data in damaged(kind, count):
        try:
            samples, _ = decoder.decode(data)
        except AudioError as error:
            messages.append(str(error))
        else:
            assert len(samples)
            assert np.isfinite(samples).all()
    assert len(messages) >= count // 4
    assert not [message for message in messages if "\n" in message or "object at" in message]
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_dies_costs_one_sound(decoder, monkeypatch):
    """If the process is killed twice, the file has the reason `crashed`, and the next one is decoded."""
    killing = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)  # {} {}"
    monkeypatch.setattr(isolation, "WORKER_CODE", killing)
    with pytest.raises(AudioError, match="crashed"):
        decoder.decode(sound_file(tone(0.2), kind="FLAC"))
    monkeypatch.undo()
    assert len(decoder.decode(sound_file(tone(0.2), kind="FLAC"))[0]) == 3200


def test_a_decoder_that_hangs_is_ended(monkeypatch):
    """After the timeout the file has the reason `timed_out`."""
    monkeypatch.setattr(isolation, "WORKER_CODE", "import time; time.sleep(600)  # {} {}")
    decoder = SoundDecoder(16000, timeout_seconds=1)
    with pytest.raises(AudioError, match="timed_out"):
        decoder.decode(sound_file(tone(0.2), kind="OGG"))
    decoder.close()


def test_a_run_leaves_no_process(tmp_path):
    """After `embed` the processes that decoded have ended, and broken files are failures beside good ones."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
    clips = tmp_path / "clips" / "tones"
    clips.mkdir(parents=True)
    for n, kind in enumerate(("FLAC", "OGG", "MP3")):
        (clips / f"{n}.{kind.lower()}").write_bytes(sound_file(tone(0.5, seed=n), kind=kind))
    (clips / "broken.mp3").write_bytes(b"ID3" + b"\x01" * 40)
    store = es.create(tmp_path / "s.store", f"hf/{save_sound_model(tmp_path / 'm', 'whisper')}", device="cpu")
    report = store.embed(tmp_path / "clips")
    assert (report.embedded, report.failures_by_reason) == (3, {"corrupt": 1})
    deadline = time.monotonic() + 30
    while _children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _children()


def _children():
    """Return the decoding processes of this process."""
    try:
        listed = subprocess.run(
            ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("this system has no ps")
    return [line for line in listed.stdout.splitlines() if "audio import isolation_worker" in line]


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64", "FLAC"])
def test_half_a_sound_is_cut_off(decoder, kind):
    """A file without its second half has the reason `truncated` or `corrupt`, whatever its container."""
    data = sound_file(tone(0.5), kind=kind)
    with pytest.raises(AudioError, match=r"truncated|corrupt"):
        decoder.decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "ULAW"), ("WAV", "ALAW"), ("WAV", "GSM610"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"),
        ("WAV", "G721_32"), ("AU", "ULAW"), ("AU", "G723_24"), ("OGG", "OPUS"), ("CAF", "ALAC_16"), ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
    ],
)  # fmt: skip
def test_codecs_of_telephones_are_read_in_a_container(decoder, kind, subtype):
    """A tone of 440 Hz in every codec that the decoder knows has its pitch at 16 kHz."""
    pure = (0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.float32)
    samples, info = decoder.decode(sound_file(pure, rate=8000, kind=kind, subtype=subtype))
    spectrum = np.abs(np.fft.rfft(samples[:16000]))
    assert abs(np.argmax(spectrum) * 16000 / len(samples[:16000]) - 440) < 5
    assert info.format == kind


def test_samples_without_a_header_are_named(decoder):
    """Raw G.711, GSM or G.722 says neither rate nor codec: one line."""
    raw = (np.arange(4000) % 33 * 7).astype(np.uint8).tobytes()
    with pytest.raises(AudioError, match=r"not_a_sound: .*recognised") as e:
        decoder.decode(raw)
    assert "object at" not in str(e.value)
