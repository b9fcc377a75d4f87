"""Groups of duplicates in words, for the terminal and for HTML pages."""

from __future__ import annotations

from embedstore.search.duplicate_groups import DuplicateGroups
from embedstore.wording import counted

_USUAL_SCORE = 0.7  # of the pixels of one picture
ONLY_EQUAL_NOTE = (
    "these vectors cannot tell copies from items that look alike, so only equal vectors count; give "
    "`--threshold 0.99`, or another cosine, to decide yourself"
)


def duplicate_summary(groups: DuplicateGroups) -> str:
    """Return what was found and compared, and what is left out, in one line."""
    listed, across = len(groups.cross_split_pairs), groups.cross_split_count
    pairs = f"{counted(across, 'pair of items', 'pairs of items')} across splits"
    if listed < across:
        pairs += f", of which the {listed:,} most similar are listed"
    chosen = ", chosen from the vectors" if groups.is_threshold_chosen else ""
    return (
        f"{counted(len(groups.items), 'item')} in {counted(groups.group_count, 'group')}, "
        f"{counted(groups.pair_count, 'pair of contents', 'pairs of contents')}, "
        f"{pairs}; cosine {groups.threshold:g}{chosen}; {counted(groups.content_count, 'content')} compared "
        f"{_compared(groups)}"
    )


def label_conflict_note(groups: DuplicateGroups) -> str | None:
    """Return that items of groups have different labels, which a deletion would hide; None where they agree."""
    n = groups.label_conflict_count
    if not n:
        return None
    return f"in {counted(n, 'group')} labels differ, and the item to keep may be the one with the wrong label"


def _compared(groups: DuplicateGroups) -> str:
    """Return how contents were compared, and what that misses."""
    if groups.pixels is not None:
        check = groups.pixels
        raised = ""
        if check.least_score > _USUAL_SCORE:
            raised = f", with a score of at least {check.least_score:.2f} because different images look alike here"
        unread = (
            f"; {counted(check.unread, 'image')} could not be read, and their cosines decide" if check.unread else ""
        )
        return (
            f"by the pixels of {counted(check.candidates, 'nearest pair')}: {check.same:,} show one picture "
            f"({check.crops:,} a "
            f"part of it){raised}, {check.different:,} at or above the cosine do not{unread}"
        )
    if not groups.recall_pairs and groups.recall == 1:
        return "every one with every other"
    if groups.recall is None:
        return "within cells; what that misses is unknown, because no sampled content has a pair"
    return (
        f"within cells; {groups.recall:.2%} of "
        f"{counted(groups.recall_pairs, 'pair of sampled contents', 'pairs of sampled contents')} were found"
    )
