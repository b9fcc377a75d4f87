"""The types of the public API, as mypy --strict sees them. This file is checked, never run."""

from pathlib import Path
from typing import Any, assert_type

import embedstore as es

store = es.create("pets.store", backbone="clip", space_name="clip")
assert_type(store, es.Store)
assert_type(es.open(Path("pets.store"), device="cpu"), es.Store)
assert_type(es.restore("backup", "pets.store"), es.Backup)
assert_type(es.import_store("pets.store", "export"), es.ArchiveCounts)
assert_type(es.repair_store("pets.store"), es.RepairReport)
assert_type(es.verify_untrusted("pets.store"), es.UntrustedReport)
assert_type(store.path, Path)
assert_type(store.spaces, list[es.SpaceRecord])
assert_type(store.heads, list[es.HeadRecord])
with store as same:
    assert_type(same, es.Store)

assert_type(store.embed("photos/", wait=5.0, progress=False), es.EmbedReport)
assert_type(store.info(), es.StoreInfo)
assert_type(store.info().to_json(), dict[str, Any])

hits = store.search("a dog", k=5, where="year > 2020", plus=["snow", (7, 0.5)])
assert_type(hits, es.Hits)
assert_type(hits[0], es.Hit)
assert_type([hit.score for hit in hits], list[float])
assert_type(hits.to_json(), dict[str, Any])
assert_type(hits.html(), str)
hits.df()
hits.arrow()

assert_type(store.sql("select 1"), es.SqlResult)
assert_type(store.sql("select 1").rows, tuple[tuple[Any, ...], ...])
store.sql("select 1").df()

evaluation = store.probe("label", head_options={"Cs": [1.0]})
assert_type(evaluation, es.Evaluation | es.RegressionEvaluation)
assert_type(evaluation.scores["mae"].high, float)
assert isinstance(evaluation, es.Evaluation)  # numbers are evaluated as es.RegressionEvaluation
assert_type(evaluation.accuracy, float)
assert_type(evaluation.scores["accuracy"].low, float)
assert_type(store.knn("label", k=3, folds=5), es.Evaluation | es.RegressionEvaluation)
assert_type(store.zero_shot(["cat", "dog"]), es.ZeroShotClassifier)
assert_type(store.zero_shot(["cat", "dog"]).evaluate("label"), es.Evaluation)
assert_type(store.compare_heads("label"), es.HeadComparison | es.RegressionComparison)
assert_type(store.learning_curve("label"), es.LearningCurve)
assert_type(store.label_errors(), es.LabelErrorReport)
assert_type(store.suggest_labels(), es.LabelSuggestions)
assert_type(store.shift("year < 2020", "year >= 2020"), es.ShiftReport)
assert_type(store.duplicates(0.9), es.DuplicateGroups)
assert_type(store.edit({"label": "'bee'"}, "true"), es.ChangedItems)

tuned = store.finetune("label", layers="last-2", epochs=3, mixup=0.2)
assert_type(tuned, es.FinetuneResult)
assert_type(store.set_default(tuned), es.DefaultSpace)

# What a type checker must refuse: each ignore below is an error if it is not needed.
store.search("a dog", kk=5)  # type: ignore[call-arg]
store.knn("label", fold=5)  # type: ignore[call-arg]
store.finetune("label", epohcs=3)  # type: ignore[call-arg]
store.search("a dog", k="five")  # type: ignore[arg-type]
