"""Every command that a message names is followed once: what fails, the command of its message, and then it works.

The store lies in a folder with a space in its name, so that a command that is not quoted fails.
"""

import re
import shutil

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import embedstore as es
from tests.conftest import ROOT, TINY
from tests.helpers.clusters import add, clusters, store_of
from tests.helpers.cures import Cure, follow, name_of
from tests.house.test_cures import COMMAND, messages

X, Y = clusters(40, noise=0.1)
TAGS = [[y, "x"] if n % 2 else [y] for n, y in enumerate(clusters(80, noise=0.1)[1])]
YEARS = [1980.5 + n for n in range(40)]


def numbers(folder, **columns):
    """A store of vectors with labels."""
    return store_of(folder / "my store", X, label=Y, **columns)


def photos(folder, **columns):
    """A store of three embedded photos."""
    (folder / "p" / "cat").mkdir(parents=True)
    for n in range(3):
        Image.new("RGB", (16, 16), (80 * n, 9, 9)).save(folder / "p" / "cat" / f"{n}.png")
    store = es.create(folder / "my store", "embedstore/tiny", device="cpu")
    store.embed(folder / "p", progress=False)
    return store


def with_heads(folder):
    """A store of precomputed vectors with two heads."""
    store = numbers(folder)
    store.probe("label", head="ridge", save_as="line")
    store.probe("label", head="knn", save_as="near")


def partly_embedded(folder):
    """A store whose default space lacks the vectors of three items."""
    store = store_of(folder / "my store", X, space="whole", label=Y)
    add(store, X[:37], "numbers")
    store.set_default("numbers")


def with_lost_head(folder):
    """A store with a head whose file is gone."""
    with_heads(folder)
    shutil.rmtree(folder / "my store" / "heads" / "line")


def with_parted_spaces(folder):
    """A store with two spaces that have no image in common."""
    photos(folder)
    for n in range(40):
        path = folder / "pq"[n % 2] / ("cat", "dog")[n // 2 % 2] / f"i{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (6 * n, 9, 200 * (n // 2 % 2))).save(path)
    store = es.open(folder / "my store")
    store.embed(folder / "p", progress=False)
    store.add_space(TINY, random_init=True, preprocess={"size": 32, "resize": 32}, space_name="other space")
    store.embed(folder / "q", space="other space", progress=False)


def with_two_spaces(folder):
    """A store with a second space, and a head in the first."""
    store = numbers(folder)
    add(store, X[:, :8], "other space")
    store.save_head("kept", store.probe(head="ridge", space="numbers"))
    return store


def with_conflicting_copies(folder):
    """A store of photos, and a folder with one of them under another label."""
    photos(folder)
    (folder / "q" / "dog").mkdir(parents=True)
    shutil.copy(folder / "p" / "cat" / "0.png", folder / "q" / "dog" / "0.png")


def with_plan(folder):
    """A store with a plan of one part that is left."""
    store = photos(folder)
    Image.new("RGB", (16, 16), (9, 200, 9)).save(folder / "p" / "cat" / "new.png")
    store.plan_parts(folder / "p", 1, progress=False)
    return store


def with_torn_result(folder):
    """A store with a result of a part that was cut."""
    with_plan(folder)
    es.work(folder / "my store", "1/1", progress=False)
    (result,) = (folder / "my store").rglob("*.part")
    result.write_bytes(result.read_bytes()[:-1])


def with_emptied_cells(folder):
    """A manifest whose cells were emptied after it was embedded."""
    store = photos(folder)
    uris = [uri for (uri,) in store.sql("SELECT uri FROM items ORDER BY item").rows]
    pd.DataFrame({"uri": uris, "note": ["a", "b", "c"]}).to_csv(folder / "t.csv", index=False)
    store.embed(folder / "t.csv", progress=False)
    pd.DataFrame({"uri": uris, "note": ["a", None, None]}).to_csv(folder / "t.csv", index=False)


def with_marked_duplicates(folder):
    """Three equal rows, of which the kept one will go."""
    store = store_of(folder / "my store", np.ones((3, 4), np.float32))
    store.duplicates(0.9, write_columns=True)


def with_broken_file(folder):
    """A vector file with one changed byte."""
    photos(folder).close()
    file = next((folder / "my store" / "spaces").glob("*/shards/*.vec"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 255
    file.chmod(0o600)
    file.write_bytes(data)


def with_broken_index(folder):
    """An index whose description was changed."""
    numbers(folder).build_index()
    for file in (folder / "my store" / "spaces").glob("*/index/*.faiss"):
        file.write_bytes(file.read_bytes()[:-9])


def change_catalog(statement):
    """Return a function that makes a store and changes its catalog by hand."""

    def prepare(folder):
        numbers(folder).close()
        with duckdb.connect(str(folder / "my store" / "catalog.duckdb")) as con:
            con.execute(statement)

    return prepare


def with_old_split(folder):
    """A store of an earlier version, with a word that is no split."""
    store = numbers(folder)
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET split = CASE WHEN item % 2 = 0 THEN 'it''s odd' ELSE 'train' END")


def without_vector(folder):
    """Two spaces of which the second lacks every image."""
    store = photos(folder)
    store.add_space(TINY, random_init=True, preprocess={"size": 32, "resize": 32}, space_name="other space")


ROWS = [
    Cure("failures STORE", partly_embedded, "probe S --head ridge", {}, 0, "info S"),
    Cure(
        "backbones [FILTER]",
        numbers,
        "create new.store --backbone vit_bass_patch16_224",
        {"[FILTER]": "vit_base"},
        0,
        "info S",
    ),
    Cure("info STORE", numbers, 'shift S --where "item > 99"', {}, 0, "probe S --head ridge"),
    Cure(
        'sql STORE "select label, count(*) from items group by 1"',
        lambda f: numbers(f, none=[None] * 40),
        "probe S none",
        {},
        0,
        "probe S label --head ridge",
    ),
    Cure(
        "edit STORE --set {} --where {}",
        lambda f: numbers(f, **{"my w": [None, -1.0, float("nan"), *[2.0] * 37]}),
        "probe S --head ridge --weight 'my w'",
        {},
    ),
    Cure(
        "edit STORE --where true --add-columns --set {}",
        lambda f: numbers(f, **{"my n": list(range(40))}),
        "probe S --head ridge --by 'my n'",
        {},
        0,
        "probe S --head ridge --by 'high_my n'",
    ),
    Cure('edit STORE --set "split=\'test\'" --where "split={}"', with_old_split, "probe S --head ridge", {}),
    Cure("probe STORE LABEL --save {}", numbers, "predict S species", {"LABEL": "label"}),
    Cure(
        "probe STORE {} --space {} --save NAME",
        with_two_spaces,
        "predict S kept --space 'other space'",
        {"NAME": "new"},
        0,
        "predict S new",
    ),
    Cure(
        "export-head STORE {} FILE.onnx",
        with_heads,
        "export-classifier S line c.onnx",
        {"FILE.onnx": "h.onnx"},
        0,
        "info S",
    ),
    Cure(
        "probe STORE LABEL --head logistic --save NAME",
        with_heads,
        "export-head S near near.onnx",
        {"LABEL": "label", "NAME": "new"},
        0,
        "export-head S new new.onnx",
    ),
    Cure("predict STORE HEAD", with_two_spaces, 'sql S "select pred.kept from items"', {"HEAD": "kept"}),
    Cure("compact {}", photos, "purge S --item 1", {}, 0, "verify S"),
    Cure("reembed {} --space {}", without_vector, "set-default S 'other space'", {}, 0, "search S --item 1"),
    Cure(
        "failures {}",
        lambda f: [
            es.create(f / "my store", "embedstore/tiny"),
            (f / "p").mkdir(),
            *[(f / "p" / f"{n}.png").write_text("x") for n in range(14)],
        ],
        "embed S p",
        {},
        0,
        "info S",
    ),
    Cure("export STORE FOLDER", numbers, "import new.store exported", {"FOLDER": "exported"}),
    Cure(
        "embed STORE --vectors FILE.npy --table FILE",
        lambda f: [
            numbers(f),
            np.save(f / "v.npy", X),
            (f / "e").mkdir(),
            pd.DataFrame({"uri": [f"/new/{n}" for n in range(40)]}).to_csv(f / "t.csv", index=False),
        ],
        "import new.store e",
        {"FILE.npy": "v.npy", "FILE": "t.csv"},
        0,
        "search S --item 41",
    ),
    Cure(
        "embed STORE SOURCE --backbone NAME",
        lambda f: [photos(f), shutil.rmtree(f / "my store"), es.create(f / "my store")],
        "embed S p",
        {"SOURCE": "p", "NAME": "embedstore/tiny"},
    ),
    Cure(
        "label-errors STORE {}",
        lambda f: numbers(f, **{"my l": [*Y[:39], None]}),
        "label-errors S 'my l' --confirm 40",
        {},
        0,
        "label-errors S 'my l' --confirm 1",
    ),
    Cure("edit STORE TABLE", with_emptied_cells, "embed S t.csv", {"TABLE": "t.csv"}),
    Cure("index STORE", with_broken_index, "search S --item 1", {}),
    Cure("repair STORE", with_broken_file, "search S --item 1", {}),
    Cure(
        "verify STORE", change_catalog('UPDATE vectors SET "row" = 9999'), "search S --item 1", {}, 1, "backbones clip"
    ),
    Cure("verify STORE --untrusted", change_catalog("CREATE VIEW v AS SELECT 1"), "info S", {}, 1, "backbones clip"),
    Cure("create {}", lambda f: None, "info S", {}),
    Cure("create FOLDER", lambda f: (f / "my store").mkdir(), "info S", {"FOLDER": "new.store"}, 0, "info new.store"),
    Cure(
        "duplicates STORE --write-columns",
        with_marked_duplicates,
        "delete S --where duplicate_keep",
        {},
        0,
        "search S --item 2 --where duplicate_keep",
    ),
    Cure(
        "set-default STORE {}",
        lambda f: add(numbers(f), X[:, :8], "other space"),
        "drop-space S numbers",
        {},
        0,
        "info S",
    ),
    Cure(
        "heads STORE --delete NAME",
        lambda f: with_two_spaces(f).set_default("other space"),
        "drop-space S numbers",
        {"NAME": "kept"},
    ),
    Cure(
        'shift STORE --first "year < 2024" --second "year >= 2024"',
        lambda f: numbers(f, year=[2023] * 20 + [2024] * 20),
        "shift S",
        {},
        0,
        "info S",
    ),
]

ROWS += [
    Cure("plan-parts STORE SOURCE", photos, "register S", {"SOURCE": "p"}, 0, "info S"),
    Cure("plan-parts STORE SOURCE --replace", with_plan, "plan-parts S p", {"SOURCE": "p"}, 0, "info S"),
    Cure("work STORE --part N/{}", with_plan, "plan-parts S p", {"N/1": "1/1"}, 0, "register S"),
    Cure(
        "duplicates STORE --threshold 1 -o copies.html",
        with_conflicting_copies,
        "embed S q",
        {},
        0,
        "info S",
    ),
    Cure("probe STORE {}", lambda f: numbers(f, year=YEARS), "label-errors S year", {}, 0, "info S"),
    Cure(
        "edit STORE --where true --add-columns --set {}",
        numbers,
        "suggest-labels S 'my kinds'",
        {},
        0,
        "suggest-labels S 'my kinds'",
    ),
    Cure(
        "suggest-labels STORE {}",
        lambda f: numbers(f, **{"my l": [*Y[:5], *[None] * 35]}),
        "suggest-labels S 'my l' --forecast",
        {},
        0,
        "info S",
    ),
    Cure(
        "learning-curve STORE {}",
        lambda f: store_of(f / "my store", clusters(80, noise=0.1)[0], **{"my tags": TAGS}),
        "suggest-labels S 'my tags' --forecast",
        {},
        0,
        "info S",
    ),
    Cure("backbones --text", numbers, "search S 'a red car'", {}, 0, "info S"),
    Cure("probe STORE {} --head {} --save {}", with_lost_head, "predict S line", {}),
    Cure(
        "reembed STORE --space {}",
        with_parted_spaces,
        "compare-spaces S label --space 'other space' --baseline tiny",
        {},
        0,
        "info S",
    ),
    Cure("register STORE", with_torn_result, "verify S", {}),
]

ELSEWHERE = {
    "plan-parts STORE SOURCE --inbox s3://BUCKET/FOLDER": "tests/pipeline/distributed/test_bucket_cures.py",
    "work {} --part N/{}": "tests/pipeline/distributed/test_bucket_cures.py",
    "replicate STORE ADDRESS --name NAME": "tests/engines/test_replica_cures.py",
    "replicate STORE ADDRESS --name {}": "tests/engines/test_replica_cures.py",
    "replicate STORE --name {}": "tests/engines/test_replica_cures.py",
    "embed STORE SOURCE --backbone NAME --weights FILE{}": "tests/backbones/test_weight_cures.py",
    "embed STORE SOURCE --backbone {} --weights FILE{}": "tests/backbones/test_weight_cures.py",
    "finetune STORE LABEL": "tests/finetuning/test_cures.py",
    "set-default {} {}": "tests/finetuning/test_switch_note.py",
    "set-default STORE {} --refit-heads": "tests/finetuning/test_cures.py",
    "drop-space STORE SPACE": "tests/finetuning/test_cures.py",
}
HELP = {"replicate"}  # a help text names the verb alone


def test_every_command_of_a_message_has_a_row():
    """A new message with a command is followed here, or this test fails."""
    found = {
        verb + rest
        for where, text in messages()
        if not where.startswith("embedstore/cli/put_in")  # its help text names an export
        for verb, rest in COMMAND.findall(text)
    }
    rows = {row.command for row in ROWS}
    assert found - rows - HELP == set(ELSEWHERE)
    assert rows <= found


@pytest.mark.parametrize("command", ELSEWHERE)
def test_a_command_that_needs_more_is_followed_elsewhere(command):
    """A server, a bucket, a training or weights: the file that is named has a cure of that command."""
    source = (ROOT / ELSEWHERE[command]).read_text(encoding="utf-8")
    assert re.search(rf'\bCure\(\s*"{re.escape(command)}"', source)


@pytest.mark.parametrize("cure", ROWS, ids=name_of)
def test_the_command_of_a_message_works(capsys, monkeypatch, tmp_path, cure):
    """What the message says is typed as it is written, with the user's names for the words in capitals."""
    monkeypatch.chdir(tmp_path)
    follow(cure, tmp_path, capsys)
