"""Ogg files of several sounds, containers that are no sound file, and samples that are no sound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import AudioError
from embedstore.media.audio.containers import other_container
from embedstore.media.audio.decode import decode_sound
from embedstore.media.audio.joined import split_sounds
from tests.helpers.sound_models import sound_file, tone

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

links = st.tuples(st.sampled_from([8000, 16000, 44100]), st.floats(0.05, 0.4), st.integers(0, 9))


def ogg(rate, seconds, seed):
    """Return one sound as an Ogg file."""
    return sound_file(tone(seconds, rate=rate, pitch=200 + 50 * seed, seed=seed), rate=rate, kind="OGG")


@settings(max_examples=20)
@given(st.lists(links, min_size=1, max_size=4))
def test_every_sound_of_a_chain_is_read(chain):
    """Ogg files that were joined by `cat`, as internet radio writes them, are the sounds one after the other."""
    files = [ogg(*link) for link in chain]
    joined = b"".join(files)
    assert list(split_sounds(joined)) == files
    samples, info = decode_sound(joined, 16000)
    assert info.format == "OGG"
    np.testing.assert_array_equal(samples, np.concatenate([decode_sound(file, 16000)[0] for file in files]))


def test_a_chain_with_bytes_between_is_read_to_its_end():
    """Damage between two sounds does not hide the second; the limit holds for all of them together."""
    one, two = ogg(16000, 0.3, 1), ogg(8000, 0.3, 2)
    assert len(list(split_sounds(one + b"?" * 100 + two))) == 2
    assert not list(split_sounds(b""))
    assert list(split_sounds(b"OggS")) == [b"OggS"]
    with pytest.raises(AudioError) as caught:
        decode_sound(one + two[: len(two) // 2], 16000)
    assert caught.value.reason in ("corrupt", "truncated")


def test_the_limit_of_seconds_holds_for_a_chain(monkeypatch):
    """Many short sounds in one file are refused as one long sound is."""
    from embedstore.media.audio import decode

    monkeypatch.setattr(decode, "MAX_SECONDS", 1.0)
    short = ogg(16000, 0.4, 1)
    assert len(decode_sound(short * 2, 16000)[0]) == 12800
    with pytest.raises(AudioError, match="cut it into several files") as caught:
        decode_sound(short * 3, 16000)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x20ftypM4A " + b"\0" * 100,
        b"\0\0\0\x08wide\0\0\0\0mdat" + b"\0" * 100,
        b"\x01\0\0\0moov" + b"\0" * 100,
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"\0" * 100,
        b"RIFF\x20\0\0\0AVI LIST" + b"\0" * 24,
        (b"G" + b"\0" * 187) * 4,
        b"\xff\xf1\x50\x80" + b"\0" * 100,
        b"OggS\0\x02" + b"\0" * 20 + b"\x01\x2a\x80theora" + b"\0" * 100,
        b"#!AMR\n" + b"\0" * 100,
        b"\x0bw" + b"\0" * 100,
        b"FLV\x01" + b"\0" * 100,
    ],
)
def test_a_container_of_another_kind_is_named_with_the_command_that_helps(data):
    """MP4, QuickTime, WMA, AVI, MPEG, AAC, Ogg video, AMR, AC-3 and Flash: what it is, and ffmpeg."""
    with pytest.raises(AudioError, match=r"ffmpeg -i FILE sound\.flac") as caught:
        decode_sound(data, 16000)
    assert caught.value.reason == "not_a_sound"


@pytest.mark.parametrize("text", [b"The free dog", b"The wide sea", b"Go", b"G" + b"o" * 1000, b"a wood", b""])
def test_a_text_is_no_container(text):
    """Words that are names of boxes too do not make a text a video."""
    assert other_container(text) is None


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_sound_is_no_other_container(kind):
    """No format that is read is taken for another."""
    assert other_container(sound_file(tone(0.2), kind=kind)) is None


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 96000, 192000])
def test_one_sample_is_too_short_at_any_rate(rate):
    """A single sample is no silence, and resampling does not make a sound of it."""
    with pytest.raises(AudioError) as caught:
        decode_sound(sound_file(np.array([0.5], np.float32), rate=rate), 16000)
    assert caught.value.reason == "too_short"


@pytest.mark.parametrize("loudest", [1e10, 1e30, 3e38])
@pytest.mark.parametrize("channels", [1, 6])
def test_samples_beyond_every_scale_are_damage(loudest, channels):
    """Squares of such floats overflow, and the network would read silence; those of the range of integers are read."""
    samples = np.repeat(tone(0.2)[:, None], channels, axis=1)
    samples /= np.abs(samples).max()
    with pytest.raises(AudioError) as caught:
        decode_sound(sound_file((samples * loudest).astype(np.float32), subtype="FLOAT"), 16000)
    assert caught.value.reason == "corrupt"
    as_integers = decode_sound(sound_file((samples * 2**31).astype(np.float32), subtype="FLOAT"), 16000)[0]
    assert np.isfinite(np.square(as_integers).sum())


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_U8", 8), ("PCM_24", 24), ("PCM_32", 32), ("DOUBLE", 53)])
def test_every_width_of_a_sample_is_read(subtype, bits):
    """8 bit unsigned, 24 and 32 bit and float64 are the same sound, to the step of their width."""
    expected = tone(0.2)
    samples = decode_sound(sound_file(expected, subtype=subtype), 16000)[0]
    np.testing.assert_allclose(samples, expected, atol=2.0 ** (1 - min(bits, 24)))


def test_a_picture_of_five_megabytes_in_an_mp3_is_skipped():
    """An ID3 tag before the sound, and an older one behind it, change no sample."""
    plain = sound_file(tone(0.5), kind="MP3")
    size = 5_000_000
    length = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    tagged = b"ID3\x04\0\0" + length + b"\xff\xd8\xff\xe0" + bytes(size - 4) + plain + b"TAG" + b"x" * 125
    np.testing.assert_array_equal(decode_sound(tagged, 16000)[0], decode_sound(plain, 16000)[0])
