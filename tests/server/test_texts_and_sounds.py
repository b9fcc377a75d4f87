"""Texts and sounds over the API: what the page shows in place of a picture."""

import io
import wave

import numpy as np
import pytest

import embedstore as es
from embedstore.server.sounds import PLAYED_RATE, Sounds
from tests.helpers.sequence_stores import PITCHES, SECONDS, TEXTS, sound_store, text_store
from tests.helpers.sound_models import sound_file, tone
from tests.server.conftest import running

pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")


@pytest.fixture(scope="module", params=[text_store, sound_store], ids=["texts", "sounds"])
def kind(request, tmp_path_factory):
    """A client of a server of each kind of store, and the store's folder."""
    path = request.param(tmp_path_factory.mktemp("sequences"))
    with es.open(path) as store, running(store) as server, server.client() as client:
        yield client, path


def items_of(client):
    """Return the ids of the items in order."""
    return [item["id"] for item in client.get("/api/v1/items").json()["items"]]


def test_the_preview_has_the_text_or_names_the_sound(kind):
    """A text is itself, cut where the request says; a sound has none."""
    client, path = kind
    previews = [
        client.get(f"/api/v1/items/{item}/preview", params={"characters": 60}).json() for item in items_of(client)
    ]
    if path.name == "clips.store":
        assert previews == [{"kind": "sound", "text": None, "is_cut": False}] * len(PITCHES)
        return
    assert [preview["kind"] for preview in previews] == ["text"] * len(TEXTS)
    assert [preview["text"] for preview in previews] == [text.strip()[:60] for text in TEXTS]
    assert [preview["is_cut"] for preview in previews] == [False, False, False, True]


def test_a_sound_is_decoded_and_sent_in_parts(kind):
    """WAV of one channel and 16 bits, whatever the file was; a player may ask for the rest from a position on."""
    client, path = kind
    first = items_of(client)[0]
    if path.name == "notes.store":
        assert client.get(f"/api/v1/items/{first}/sound").status_code == 400
        return
    answer = client.get(f"/api/v1/items/{first}/sound")
    assert (answer.headers["content-type"], answer.headers["accept-ranges"]) == ("audio/wav", "bytes")
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, PLAYED_RATE)
        assert sound.getnframes() == pytest.approx(SECONDS * PLAYED_RATE, abs=2)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert spectrum.argmax() / SECONDS == pytest.approx(PITCHES[0], abs=4)
    whole = answer.content
    for wanted, status, part in (
        ("bytes=100-", 206, whole[100:]),
        ("bytes=0-9", 206, whole[:10]),
        (f"bytes=5-{10**12}", 206, whole[5:]),
        (f"bytes={len(whole)}-", 416, b""),
        ("bytes=9-3", 416, b""),
        ("bytes=0-1,5-6", 200, whole),
        ("lines=1-2", 200, whole),
        (f"bytes={'9' * 5000}-", 200, whole),
    ):
        answer = client.get(f"/api/v1/items/{first}/sound", headers={"range": wanted})
        assert (answer.status_code, answer.content) == (status, part), wanted
    fresh = {"if-none-match": answer.headers["etag"]}
    assert client.get(f"/api/v1/items/{first}/sound", headers=fresh).status_code == 304


def test_what_cannot_be_shown_is_refused(kind):
    """An item that does not exist, and one whose file is gone."""
    client, path = kind
    source = path.parent / ("notes.csv" if path.name == "notes.store" else f"clips/{PITCHES[2]}.wav")
    item = items_of(client)[-1]
    away = source.rename(source.with_suffix(".away"))
    route = "preview" if path.name == "notes.store" else "sound"
    try:
        answer = client.get(f"/api/v1/items/{item}/{route}")
    finally:
        away.rename(source)
    assert (answer.status_code, answer.json()["kind"]) != (200, "Defect")
    assert answer.status_code == 400
    assert client.get(f"/api/v1/items/999/{route}").status_code == 404


def test_among_texts_everything_fits_unless_somebody_chooses(kind):
    """A collection of texts mentions many things, so that the usual cut-off would hide what is there."""
    client, path = kind
    if path.name == "clips.store":
        pytest.skip("this network of sounds reads no words")
    search = {"words": "a dog", "k": len(TEXTS)}
    assert client.post("/api/v1/search", json=search).json()["cut_off"] is None
    assert client.post("/api/v1/search", json=search | {"strictness": 0.5}).json()["cut_off"] is not None


def test_only_the_first_minutes_of_a_sound_are_played(monkeypatch):
    """What is sent has a limit, and what was decoded once is kept."""
    monkeypatch.setattr("embedstore.server.sounds.PLAYED_SECONDS", 1)
    sounds, reads = Sounds(), []
    try:
        for _ in range(2):
            data = sounds.get("digest", lambda: reads.append(1) or sound_file(tone(1.5)))
    finally:
        sounds.close()
    with wave.open(io.BytesIO(data)) as sound:
        assert sound.getnframes() == PLAYED_RATE
    assert len(reads) == 1
