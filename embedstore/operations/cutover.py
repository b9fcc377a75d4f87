"""Cutting over: old and new space side by side, the default changed, heads fitted again, spaces dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.classify import registry
from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import select_shared_items
from embedstore.classify.evaluation import compare_spaces, evaluate_fitted
from embedstore.classify.evaluation.compare_spaces import PairedEvaluation, SpaceComparison
from embedstore.errors import EmbedstoreError, LabelError
from embedstore.operations.evaluate import Judging
from embedstore.operations.runs import record
from embedstore.storage import space_changes
from embedstore.storage.queries.finetuning import count_missing_vectors
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now

if TYPE_CHECKING:
    from embedstore.operations.finetune_result import FinetuneResult


class Cutover(Judging):
    """Verbs that compare two spaces of a store and change from one to the other."""

    def versus(
        self,
        label: str = "label",
        new: str | None = None,
        old: str | None = None,
        *,
        where: str | None = None,
        seed: int = 0,
    ) -> SpaceComparison:
        """Two spaces side by side on the same held-out items: probe, kNN, zero-shot, per class, with significance.

        Args:
            label: the column. new: a space, by default the latest tuned one. old: by default its parent.
            where: a filter. seed: of the split.

        Raises:
            SpaceNotFound, LabelError: as their names say.
        """
        started = utc_now()
        after = self._storage.space(new) if new else self._latest_tuned()
        before = self._storage.space(old or after.space.parent)
        one, two = select_shared_items([self.features(label, where=where, space=s.key) for s in (before, after)])
        pairs = compare_spaces.evaluate_in_both_spaces(one, two, seed=seed)
        pairs += self._own_head(pairs[0], two, after) + self._zero_shots(before, after, label, where)
        result = SpaceComparison.from_evaluations(
            pairs, has_same_vectors=after.space.has_same_vectors(before.space), cost=self._costs(before, after)
        )
        settings = {"label": label, "where": where, "old": before.key, "seed": seed}
        record(self._storage, after, "versus", settings, result.to_json(), started)
        return result

    def use(self, space: str | FinetuneResult, *, refit: bool = False) -> dict[str, Any]:
        """Make a space the one that is used when none is named: one transaction, and back in the same way.

        Heads stay with the space that they were fitted in, and are refused elsewhere.

        Args:
            space: name, key, or what :meth:`finetune` gave.
            refit: before that, fit the kept heads of its parent, children and siblings again in it, under their names;
                they replace the old ones.

        Returns:
            ``{"space", "lacking", "refitted", "left"}``: its name, images without a vector in it, names of heads, and
            of those that could not be fitted why.

        Raises:
            SpaceNotFound: there is none.
        """
        row = self._storage.space(space if isinstance(space, str) else space.key)
        refitted, left = self._refit(row) if refit else ([], [])
        with self._storage.writer(f"use {row.name}") as writer:
            writer.set_default(row.key)
        return {
            "space": row.name,
            "lacking": count_missing_vectors(self._storage, row.key),
            "refitted": refitted,
            "left": left,
        }

    def drop_space(self, space: str, *, wait: float = 0.0) -> dict[str, int]:
        """Take a space out of the store, with its vectors, indexes and checkpoint.

        Returns:
            ``{"vectors", "bytes"}``: forgotten and freed.

        Raises:
            SpaceNotFound: there is none. SpaceMismatch: heads depend on it, or it is the only or the current one.
        """
        row = self._storage.space(space)
        with self._storage.writer(f"drop space {row.name}", wait=wait) as writer:
            done = space_changes.drop_space(self._storage, writer, row)
        self._networks.pop(row.key, None)
        return done

    # ---- parts

    def _refit(self, row: SpaceRecord) -> tuple[list[str], list[str]]:
        """Kept heads of the spaces with the same root again in this one: names, and why some were left."""
        parents = {s.key: s.space.parent for s in self.spaces}

        def root(key: str) -> str:
            above = parents.get(key)
            return key if above is None else root(above)

        done, left = [], []
        for head in self.heads:
            if head.space_key != row.key and root(head.space_key) == root(row.key):
                try:
                    self._refitted(head, row)
                    done.append(head.name)
                except EmbedstoreError as e:
                    left.append(f"{head.name} ({head.kind}): {e}")
        return done, left

    def _refitted(self, head: registry.HeadRecord, row: SpaceRecord) -> None:
        """One head again, as it was made."""
        estimator = self.head(head.name)
        if hasattr(estimator, "head"):
            raise LabelError("it is calibrated or abstains: fit it again with the options that it was made with")
        if head.kind == "zero_shot":
            self.zero_shot(head.metadata["classes"], space=row.key).save(head.name, label=head.label)
            return
        from embedstore.classify.heads import HEAD_NAMES

        if head.kind not in HEAD_NAMES:
            raise LabelError(f"a head of kind {head.kind} is fitted again by its own command")
        options = {"k": head.metadata["k"]} if head.kind == "knn" and "k" in head.metadata else {}
        self.probe(head.label, head=head.kind, space=row.key, save=head.name, options=options)

    def _latest_tuned(self) -> SpaceRecord:
        """The tuned space that was made last."""
        tuned = [s for s in self.spaces if s.space.parent]
        if not tuned:
            raise LabelError(f"{self.path} has no tuned space; `embedstore finetune STORE LABEL` makes one")
        return tuned[-1]

    def _own_head(self, probe: PairedEvaluation, data: Features, row: SpaceRecord) -> list[PairedEvaluation]:
        """The tuned network's own classifier against the old probe."""
        from embedstore.finetuning import checkpoint, publish

        own = checkpoint.read_tuned_head(publish.checkpoint_folder(self._storage, row.key), data.label)
        if own is None:
            return []
        held_out = data.take(np.flatnonzero(np.isin(data.ids, probe.baseline.held_out_predictions.ids)))
        evaluation = evaluate_fitted(own, held_out, head="own head", split=probe.baseline.split)
        return [compare_spaces.pair_evaluations("old probe, own head of the tuned network", probe.baseline, evaluation)]

    def _zero_shots(self, old: SpaceRecord, new: SpaceRecord, label: str, where: str | None) -> list[PairedEvaluation]:
        """Words as a classifier in both spaces, where they understand words."""
        if not (old.space.text and new.space.text):
            return []
        names = sorted(set(self.labels(label, where=where, space=new.key)))
        made = [self.zero_shot(names, space=s.key).evaluate(label, where=where) for s in (old, new)]
        try:
            return [compare_spaces.pair_evaluations("zero-shot", *made)]
        except LabelError:  # re-embedding is not finished: other items
            return []

    def _costs(self, old: SpaceRecord, new: SpaceRecord) -> dict[str, float | None]:
        """Seconds and speeds."""
        from embedstore.finetuning import checkpoint, publish

        manifest = checkpoint.read_manifest(publish.checkpoint_folder(self._storage, new.key))
        return {
            "training_seconds": manifest.get("seconds"),
            "old_images_per_second": self._cost(old).images_per_second,
            "new_images_per_second": self._cost(new).images_per_second,
        }
