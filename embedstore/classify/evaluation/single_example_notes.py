"""What a class of one example has no part in, in words."""

from __future__ import annotations

from embedstore.classify.data.class_examples import inner_folds, list_single_examples, single_examples
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.fit import SINGLE_EXAMPLE_C
from embedstore.types import Split


def single_example_notes(data: Features, split: str, chooses_c: Features | None) -> tuple[str, ...]:
    """Return what classes of one example have no part in, one sentence each.

    Args:
        data: the rows that were split.
        split: name of the held-out side.
        chooses_c: the training rows, where cross-validation on them chooses C.
    """
    if data.multilabel:
        return ()
    out = []
    if split not in [s.value for s in Split] and single_examples(data.y, data.groups):
        out.append(f"{list_single_examples(data.y, data.groups)}: trained on, not evaluated")
    if chooses_c is not None and (single := single_examples(chooses_c.y, chooses_c.groups)):
        side = f" among the {len(chooses_c):,} training items"
        chosen = f"C is {SINGLE_EXAMPLE_C:g}, since nothing is left to choose it by"
        if inner_folds(chooses_c.y, chooses_c.groups):
            chosen = f"C was chosen without {'it' if len(single) == 1 else 'them'}"
        out.append(f"{list_single_examples(chooses_c.y, chooses_c.groups, side=side)}: {chosen}")
    return tuple(out)
