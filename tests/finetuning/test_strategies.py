"""A comparison of strategies says what it is going to train, and goes on where it was interrupted."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import embedstore as es
from embedstore.finetuning.kept_strategies import StrategyFile
from embedstore.finetuning.strategies import StrategyOutlook, StrategyResult, StrategyTraining, TrainingRegime
from tests.helpers.finetune_store import store_of, textures

FROZEN, LAST, ALL = TrainingRegime.FROZEN, TrainingRegime.LAST, TrainingRegime.ALL


def test_what_is_left_follows_the_time_that_was_taken():
    """Trainings that take twice their estimate double what is left; before the first the estimate holds."""
    outlook = StrategyOutlook({StrategyTraining(r, 5): s for r, s in ((FROZEN, 1.0), (LAST, 3.0), (ALL, 6.0))}, ())
    frozen = StrategyResult(FROZEN, 5, 10, 0.5, 2.0)
    assert outlook.remaining([]) == 10
    assert outlook.remaining([frozen]) == 18
    assert outlook.remaining([frozen, StrategyResult(LAST, 5, 10, 0.5, 2.0)]) == 6


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": 3}', '{"results": [{"way": "x"}]}'])
def test_a_file_of_no_use_is_no_result(tmp_path, text):
    """A file that another hand changed is trained again, and what is written is read as it was."""
    file = StrategyFile(tmp_path / "f.json")
    assert file.read() == []
    file.path.write_text(text)
    assert file.read() == []
    results = [StrategyResult(ALL, None, 12, 0.75, 1.5), StrategyResult(FROZEN, 3, 9, 0.5, 0.25)]
    file.write(results)
    assert file.read() == results


@pytest.fixture
def store(tmp_path):
    """Fifteen textures of three classes."""
    return store_of(tmp_path / "s", textures(tmp_path / "photos", 5))


def events_of(path, **options):
    """Return what a comparison reports."""
    events = []
    es.open(path).compare_strategies(labels_per_class=(), epochs=0, progress=events.append, **options)
    return events


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_outlook_comes_first_and_nothing_is_left_behind(store):
    """Four trainings are announced with a time each; afterwards a repeated command trains all of them again."""
    for _ in range(2):
        outlook, *results = events_of(store.path)
        assert isinstance(outlook, StrategyOutlook)
        assert outlook.done == ()
        assert list(outlook.seconds) == [r.training for r in results]
        assert all(seconds > 0 for seconds in outlook.seconds.values())
    assert not [p for p in (store.path / "checkpoints").iterdir() if (p / "strategies.json").exists()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_after_ctrl_c_the_same_command_goes_on(store):
    """SIGINT after the first result ends the command; the next one keeps that result and trains the other three."""
    command = [sys.executable, "-m", "embedstore", "compare-strategies", str(store.path), "label"]
    command += ["--labels-per-class", "0", "--epochs", "1", "--json"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 600
    while not list((store.path / "checkpoints").glob(".*/strategies.json")) and time.monotonic() < end:
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    (kept,) = (store.path / "checkpoints").glob(".*/strategies.json")
    before = json.loads(kept.read_text())["results"]
    os.kill(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=300)
    assert first.returncode != 0
    assert "Traceback" not in errors
    second = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    cells = json.loads(second.stdout)["cells"]
    assert cells[: len(before)] == before
    assert len(cells) == 4
    assert f"{4 - len(before)} trainings, {len(before)} more are done already" in second.stderr
    assert not kept.parent.exists()
