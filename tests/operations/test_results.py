"""Every result of a public method converts to JSON and has named parts, and a store shows what it holds."""

import ast
import inspect
import json
import re

import pytest

import embedstore as es
from tests.conftest import ROOT, TINY, picture
from tests.helpers.clusters import clusters, store_of

NOT_RESULTS = {"Store", "Features", "ZeroShotClassifier", "Hit"}  # these are used, not reported
MAPPINGS = {  # members of results that map, by what their keys are: the keys are not known beforehand
    "items": {"Store.item_paths", "Store.item_uris"},
    "columns of the user": {"Hit.columns"},
    "labels and splits of the items": {"PredictionSummary.labels", "StoreInfo.labels", "StoreInfo.splits"},
    "classes": {"ConformalEffect.threshold", "Evaluation.label_thresholds", "EmbeddingMap.palette"},
    "tables": {"ArchiveCounts.tables"},
    "checks": {"CheckupReport.checks"},
    "reasons why files fail or are left out": {
        "EmbedReport.failures_by_reason",
        "EmbedReport.skipped_by_kind",
        "ExportReport.left_out",
        "PartReport.failures_by_reason",
        "RegisterReport.failures_by_reason",
        "StoreInfo.failure_reasons",
    },
    "metrics": {
        "ClassificationReport.scores",
        "Evaluation.scores",
        "NumericReport.baseline",
        "NumericReport.scores",
        "RegressionEvaluation.scores",
        "RetrievalDirection.scores",
    },
    "hyper-parameters of a head": {
        "Evaluation.grid_edges",
        "Evaluation.hyperparameters",
        "HeadRecord.metadata",  # and facts that depend on the version that saved it
        "RegressionEvaluation.grid_edges",
        "RegressionEvaluation.hyperparameters",
    },
    "names of spaces": {"NearDuplicates.thresholds", "RetrievalReport.near_duplicate_thresholds"},
    "arguments of a network": {"Recipe.args", "Recipe.preprocess", "Space.args", "SpaceInfo.overrides"},
    "settings of preprocessing, which depend on the version that made the space": {
        "Preprocess.decoding_settings",
        "SpaceInfo.preprocess",
    },
    "methods of search": {"SearchPlan.estimated_ms"},
    "strategies": {"StrategyComparison.rows"},
    "what a run stores in the catalog": {"EmbedReport.stage_times", "PlanReport.counts"},
    "names of the table": {"ComparedHead.to_record", "ComparedRegression.to_record"},
}
CONVERSIONS = ("to_json", "from_json", "records", "typed_records")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """60 rows of three classes, every tenth without a label."""
    X, y = clusters(60)
    labels = [None if n % 10 == 0 else label for n, label in enumerate(y)]
    return store_of(tmp_path_factory.mktemp("results") / "s", X, label=labels)


def test_every_public_result_class_converts_to_json():
    """Errors and the objects that a user works with are not results."""
    classes = [n for n in es.__all__ if inspect.isclass(getattr(es, n)) and n not in NOT_RESULTS]
    results = [n for n in classes if not issubclass(getattr(es, n), es.EmbedstoreError)]
    assert len(results) > 20
    assert [n for n in results if not callable(getattr(getattr(es, n), "to_json", None))] == []


def mapping_members():
    """Return the public members of results, and of what they consist of, whose type is a mapping."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "embedstore").rglob("*.py"))
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    open_, seen, found = [n for n in es.__all__ if n in classes and not hasattr(es.errors, n)], {"Session"}, set()
    while open_:
        name = open_.pop()
        seen.add(name)
        members = list(typed_members(classes[name]))
        found |= {f"{name}.{member}" for member, kind in members if re.search(r"\b(dict|Mapping|Record)\b", kind)}
        words = [ast.unparse(base) for base in classes[name].bases] + re.findall(
            r"\w+", " ".join(k for _, k in members)
        )
        open_ += {word for word in words if word in classes} - seen
    return found


def typed_members(node):
    """Yield the public fields and methods of a class with their types, but for those that convert it."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign):
            name, kind = ast.unparse(part.target), part.annotation
        else:
            name, kind = getattr(part, "name", "_"), getattr(part, "returns", None)
        if kind is not None and not name.startswith("_") and name not in CONVERSIONS:
            yield name, ast.unparse(kind)


def test_a_result_names_its_parts():
    """A member maps only where its keys are not known beforehand; else it is a class whose fields have names."""
    assert mapping_members() == set().union(*MAPPINGS.values())


def with_head(store):
    """Return the store with a kept head."""
    store.probe(head="ridge", save_as="kept")
    return store


def backed_up(store, folder):
    """Return the folder of a backup."""
    store.backup(folder / "backup")
    return folder / "backup"


def exported(store, folder):
    """Return the folder of an export."""
    store.export_store(folder / "export")
    return folder / "export"


def restored(store, folder):
    """Return the folder of a store that was restored from a backup."""
    es.restore(backed_up(store, folder), folder / "restored")
    return folder / "restored"


@pytest.mark.parametrize(
    "call",
    [
        lambda s, _: s.info(),
        lambda s, _: s.sql("SELECT item, added, label FROM items"),
        lambda s, _: s.failures(),
        lambda s, _: s.spaces[0],
        lambda s, _: s.search(1, k=3),
        lambda s, _: s.map(),
        lambda s, _: s.duplicates(0.9),
        lambda s, _: s.cluster(3),
        lambda s, _: s.probe(head="ridge", save_as="kept"),
        lambda s, _: with_head(s).heads[0],
        lambda s, _: with_head(s).predict("kept"),
        lambda s, _: s.knn(k=3, folds=3),
        lambda s, _: s.learning_curve(head="prototype", labels_per_class=(1, 2), repeats=2),
        lambda s, _: s.compare_heads(heads=("ridge", "knn")),
        lambda s, _: s.label_errors(head="ridge"),
        lambda s, _: s.suggest_labels(head="ridge", k=3),
        lambda s, _: s.edit({"label": "label"}, "true"),
        lambda s, _: s.rename("/57", "/other"),
        lambda s, _: s.delete(items=[60]),
        lambda s, _: s.purge(items=[59]),
        lambda s, _: s.set_default("numbers"),
        lambda s, _: s.verify(),
        lambda s, _: s.repair(),
        lambda s, _: s.compact(),
        lambda s, folder: s.backup(folder / "backup"),
        lambda s, folder: es.restore(backed_up(s, folder), folder / "restored"),
        lambda s, folder: s.export_store(folder / "export"),
        lambda s, folder: es.import_store(folder / "imported", exported(s, folder)),
        lambda s, folder: es.repair_store(restored(s, folder)),
    ],
)
def test_a_result_is_plain_json(store, call, tmp_path):
    """json.dumps accepts it without a default; no call needs another one before it."""
    result = call(store, tmp_path)
    assert isinstance(json.loads(json.dumps(result.to_json())), dict | list)


def test_info_counts_what_a_store_holds(tmp_path):
    """The counts are attributes; a notebook shows them as a table."""
    X, y = clusters(9)
    store = store_of(tmp_path / "s", X, label=y, split=["train"] * 6 + ["val"] * 3)
    info = store.info()
    assert (info.items, info.contents, info.failures, info.missing) == (9, 9, 0, 0)
    assert info.labels == {"c0": 3, "c1": 3, "c2": 3}
    assert info.splits == {"train": 6, "val": 3}
    assert [(s.name, s.vectors, s.current) for s in info.spaces] == [("numbers", 9, True)]
    assert "<td>9</td>" in info._repr_html_()
    assert "9 vectors, 16 dimensions" in store._repr_html_()


def test_embedding_reports_as_json(tmp_path):
    """A run of the pipeline, with a failure."""
    (tmp_path / "photos").mkdir()
    picture(1).save(tmp_path / "photos" / "1.png")
    (tmp_path / "photos" / "2.png").write_bytes(b"none")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    facts = json.loads(json.dumps(store.embed(tmp_path / "photos", progress=False).to_json()))
    assert (facts["embedded"], facts["failures"]) == (1, 1)
    assert json.loads(json.dumps(store.failures().to_json()))[0]["reason"] == "not_an_image"
    assert store.spaces[0].to_json()["is_default"] is True
