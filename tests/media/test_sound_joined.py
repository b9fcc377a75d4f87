"""Files of several sounds, sounds whose length no header states, and channels that cancel each other out."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import AudioError
from embedstore.media.audio import mpeg
from embedstore.media.audio.decode import decode_sound
from embedstore.media.audio.isolation import SoundDecoder, is_plain_wave
from embedstore.media.audio.joined import split_sounds
from tests.helpers.sound_models import sound_file, tone

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

RATE = 16000
KINDS = (
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "GSM610"), ("WAV", "ULAW"), ("FLAC", None), ("MP3", None),
    ("AIFF", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("AU", None), ("CAF", None), ("W64", None), ("RF64", None),
)  # fmt: skip

sounds = st.tuples(
    st.sampled_from(KINDS), st.sampled_from([8000, 16000]), st.integers(1, 2), st.floats(0.1, 0.4), st.integers(0, 9)
)


def make(kind, rate, channels, seconds, seed):
    """Return one sound as a file."""
    name, subtype = kind
    if subtype == "GSM610":
        rate, channels = 8000, 1
    parts = [tone(seconds, rate=rate, pitch=200 + 40 * seed + 30 * n, seed=seed + n) for n in range(channels)]
    return sound_file(np.stack(parts, axis=1), rate=rate, kind=name, subtype=subtype)


def mp3(samples, *, mode="CONSTANT", rate=RATE):
    """Return an MP3 as the library writes it: a header with the number of frames, then the frames."""
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    return data.getvalue()


def without_header(data):
    """Return the frames of an MP3 alone."""
    return data[mpeg.read_frame(data, 0).length :]


def alone(data):
    """Return the samples of a file."""
    return decode_sound(data, RATE)[0]


def changing(seconds=12.0):
    """Return a third of near silence, then noise: a variable bit rate changes in between."""
    draw = np.random.default_rng(0)
    noise = draw.standard_normal(int(seconds * RATE)).astype(np.float32)
    noise[: len(noise) // 3] *= 1e-4
    return (0.2 * noise + 0.2 * tone(seconds)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.lists(sounds, min_size=1, max_size=4))
def test_joined_files_are_read_to_their_end(parts):
    """The samples are those of the files, one after the other, whatever their formats, rates and channels."""
    files = [make(*part) for part in parts]
    assert list(split_sounds(b"".join(files))) == files
    np.testing.assert_array_equal(alone(b"".join(files)), np.concatenate([alone(file) for file in files]))


@pytest.mark.parametrize("kind", ["FLAC", "CAF"])
@pytest.mark.parametrize("headed", [True, False])
def test_frames_behind_a_sound_that_states_no_length_are_found(kind, headed):
    """Frames of MPEG have no mark, and the end of a FLAC or CAF file is not stated."""
    one, two = make((kind, None), 16000, 2, 3.0, 1), mp3(tone(2.0))
    second = two if headed else without_header(two)
    for behind in (b"", b"TAG" + b"x" * 125):
        assert list(split_sounds(one + second + behind + one)) == [one, second + behind, one]
        assert list(split_sounds(one + second + behind)) == [one, second + behind]


MARKS = (
    b"RIFF", b"WAVE", b"RIFF\x08\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22", b"fLaC", b"OggS", b"OggS\0\x02" + bytes(8), b".snd",
    b"dns.", b"\xff\xfb\x10\xc4", b"\xff\xf3\x18\xc4" + bytes(32), b"ID3\x04\0\0\0\0\0\x05", b"caff\0\1\0\0desc",
    b"TAG", bytes(99), b".snd\0\0\0\x18" + bytes(7) + b"\3\0\0\x3e\x80\0\0\0\1",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
)  # fmt: skip
pieces = st.one_of(st.binary(max_size=40), st.sampled_from(MARKS))


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=12))
def test_every_byte_of_a_file_belongs_to_one_sound(parts):
    """Whatever the bytes, the sounds of a file are the file, and none of them is empty."""
    data = b"".join(parts)
    assert b"".join(list(split_sounds(data))) == data
    assert all(list(split_sounds(data))) or not data
    assert isinstance(mpeg.state_frames(data), bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_two_of_a_kind_are_read_whole_in_a_run_too(kind):
    """`cat a b`, the second at another rate: the process of a run gives what decoding here gives."""
    one, two = make(kind, 16000, 1, 0.5, 1), make(kind, 8000, 2, 0.3, 2)
    decoder = SoundDecoder(RATE)
    samples, _ = decoder.decode(one + two)
    decoder.close()
    np.testing.assert_array_equal(samples, np.concatenate([alone(one), alone(two)]))
    assert not is_plain_wave(one + two)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_or_padding_behind_a_sound_is_no_sound(kind):
    """What players append (ID3v1, APE, zeros, a text) changes no sample and is no part of its own."""
    data = make(kind, 16000, 1, 0.5, 1)
    for behind in (b"TAG" + b"x" * 125, b"APETAGEX" + bytes(40), bytes(1000), b"they say RIFF and fLaC\n" * 9):
        assert list(split_sounds(data + behind)) == [data + behind]
        np.testing.assert_array_equal(alone(data + behind), alone(data))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_second_sound_fails_the_file(kind):
    """The half of a second sound is a failure, never the first sound alone."""
    one, two = make(kind, 16000, 1, 0.5, 1), make(kind, 16000, 1, 3.0, 2)
    with pytest.raises(AudioError) as caught:
        alone(one + two[: len(two) // 2])
    assert caught.value.reason in ("truncated", "corrupt")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] != "MP3"])
def test_a_sound_that_was_cut_off_before_another_fails_the_file(kind):
    """The header of the second sound is not read as samples of the first."""
    one, two = make(kind, 16000, 1, 3.0, 1), make(kind, 16000, 1, 3.0, 2)
    with pytest.raises(AudioError) as caught:
        alone(one[: len(one) // 2] + two)
    assert caught.value.reason in ("truncated", "corrupt")


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize("first_has_header", [True, False])
@pytest.mark.parametrize("second_has_header", [True, False])
def test_frames_of_mp3_are_read_whether_or_not_a_header_states_them(mode, first_has_header, second_has_header):
    """Streams and cut files have no header: the end of a variable bit rate was left out, as was all behind a header."""
    sound = changing()
    whole = mp3(sound, mode=mode)
    first = whole if first_has_header else without_header(whole)
    second = whole if second_has_header else without_header(whole)
    frame = 1152
    assert abs(len(alone(first)) - len(sound)) <= 2 * frame
    assert abs(len(alone(first + second)) - 2 * len(sound)) <= 4 * frame


def test_a_header_that_states_all_frames_is_left_alone():
    """Bytes change only where frames would be left out; a file that was cut off keeps the count of what is missing."""
    whole = mp3(changing(2.0), mode="VARIABLE")
    assert mpeg.state_frames(whole) == whole
    assert mpeg.state_frames(whole[: len(whole) // 2]) == whole[: len(whole) // 2]
    assert mpeg.state_frames(b"") == b""
    bare = without_header(whole)
    stated = mpeg.state_frames(bare)
    assert stated.endswith(bare)
    frames, at = 0, 0
    while at < len(bare):
        at, frames = at + mpeg.read_frame(bare, at).length, frames + 1
    place = stated.index(b"Xing")
    assert struct.unpack(">II", stated[place + 4 : place + 12]) == (1, frames)


def test_tags_inside_a_stream_do_not_cut_it():
    """Radio over HTTP writes an ID3 tag every few seconds: the frames around it are one sound."""
    frames = without_header(mp3(changing(4.0)))
    at = 0
    for _ in range(30):
        at += mpeg.read_frame(frames, at).length
    tagged = frames[:at] + b"ID3\x04\0\0\0\0\0\x14" + b"\xff\xfb\x90\0" * 5 + frames[at:]
    assert list(split_sounds(tagged)) == [tagged]
    assert len(alone(tagged)) == len(alone(frames))


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF])
def test_a_wav_whose_samples_have_no_stated_size_is_read(stated):
    """A recorder that loses its power leaves 0, a program that writes to a pipe 0xFFFFFFFF."""
    data = bytearray(sound_file(tone(0.5)))
    expected = alone(bytes(data))
    chunk = data.find(b"data")
    data[4:8] = data[chunk + 4 : chunk + 8] = struct.pack("<I", stated)
    np.testing.assert_array_equal(alone(bytes(data)), expected)


@pytest.mark.parametrize("seconds", [0.5, 10.0])
def test_a_flac_without_a_number_of_frames_is_read(seconds):
    """`flac` writes 0 when it writes to a pipe."""
    data = bytearray(sound_file(tone(seconds), kind="FLAC"))
    expected = alone(bytes(data))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    np.testing.assert_array_equal(alone(bytes(data)), expected)


@pytest.mark.parametrize("kind", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("RF64", None), ("MP3", None), ("CAF", None)])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_sound_that_was_cut_off_is_a_failure(kind, part):
    """Pages of Ogg and sizes of 64 bits say where a sound ends."""
    data = make(kind, 16000, 1, 6.0, 1)
    with pytest.raises(AudioError) as caught:
        alone(data[: int(part * len(data))])
    assert caught.value.reason in ("truncated", "corrupt")


def test_a_small_endian_au_that_was_cut_off_is_a_failure():
    """Its numbers are in the other order."""
    data = io.BytesIO()
    soundfile.write(data, tone(1.0), RATE, format="AU", subtype="PCM_16", endian="LITTLE")
    assert len(alone(data.getvalue())) == RATE
    with pytest.raises(AudioError, match=r"truncated: it has 9,000 of 32,024 bytes"):
        alone(data.getvalue()[:9000])


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", None), ("OGG", None), ("MP3", None)])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_a_sound_whose_channels_cancel_is_read_from_the_louder_one(kind, subtype, offset):
    """One channel with its sign changed: the mean is silence, noise of the codec, or a constant."""
    sound = tone(2.0) * 0.5
    stereo = np.stack([0.9 * sound + offset, -sound + offset], axis=1)
    samples = alone(sound_file(stereo, kind=kind, subtype=subtype))
    n = min(len(samples), len(sound))
    assert np.corrcoef(samples[:n], -sound[:n])[0, 1] > (0.95 if kind == "OGG" else 0.99)
    assert np.std(samples) > 0.9 * np.std(sound)


@settings(max_examples=60)
@given(st.integers(1, 8), st.floats(-1, 1), st.integers(0, 99), st.sampled_from([1e-3, 0.1]))
def test_the_mean_is_taken_unless_the_channels_cancel(channels, alike, seed, level):
    """Channels with any correlation: the mean, unless it has less than a tenth of unrelated channels' power."""
    draw = np.random.default_rng(seed)
    common, own = draw.standard_normal((4000, 1)), draw.standard_normal((4000, channels))
    signs = np.where(np.arange(channels) % 2, np.sign(alike) or 1.0, 1.0)
    sound = (level * (abs(alike) * common * signs + (1 - abs(alike)) * own)).astype(np.float32)
    mean = sound.mean(axis=1, dtype=np.float64)
    unrelated = sound.astype(np.float64).var(axis=0).sum() / channels**2
    loudest = sound[:, np.argmax(sound.astype(np.float64).var(axis=0))]
    is_cancelled = channels > 1 and mean.var() < 0.1 * unrelated
    expected = loudest if is_cancelled else mean
    np.testing.assert_allclose(alone(sound_file(sound, subtype="FLOAT")), expected, atol=1e-6)


def test_channels_that_cancel_in_silence_are_silent():
    """Constants of opposite sign are no sound."""
    constant = np.stack([np.full(RATE, 0.25), np.full(RATE, -0.25)], axis=1).astype(np.float32)
    with pytest.raises(AudioError, match="silent"):
        alone(sound_file(constant))
