"""Run the checks of a set of images within a time, and list what they find, the worst first."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.classify.evaluation.label_errors import LabelErrorReport, LabelErrorSettings
from embedstore.errors import BadOption, EmbedstoreError
from embedstore.media.image.quality import Fault
from embedstore.modality import Modality
from embedstore.operations.class_checks import LabeledSet, class_findings, column_findings, extent
from embedstore.operations.findings import COMMAND_ITEMS, MAX_ITEMS, Finding, delete_options, listed_items, listed_note
from embedstore.operations.label_conflicts import find_label_conflicts
from embedstore.operations.labels import find_label_errors
from embedstore.operations.session import Session
from embedstore.search.content_images import measure_images
from embedstore.search.duplicates import DuplicateOptions, find_duplicates
from embedstore.storage.queries import counts, faults
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.tables import Record, Table
from embedstore.wording import counted

MIN_SIDE = 64  # pixels of a thumbnail
COMMON_SHARE = 0.3  # a fault that more of the images have is how these images are, not a fault
_BLOCK = 64  # images that are measured between two looks at the clock


@dataclass(frozen=True)
class CheckupReport(Table):
    """What the checks found.

    Attributes:
        findings: the worst first.
        checks: every check, and what it looked at or why it did not run.
        seconds: wall time.
    """

    findings: tuple[Finding, ...]
    checks: dict[str, str]
    seconds: float

    def records(self) -> list[Record]:
        """Return one mapping per finding."""
        return [
            {
                "check": f.check,
                "severity": f.severity,
                "count": f.count,
                "text": f.text,
                "command": f.command,
                "cure": f.cure,
            }
            for f in self.findings
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass
class _Checkup:
    """One run of the checks.

    Attributes:
        session: the open store.
        space: the space whose vectors are compared.
        label: the column of the labels.
        where: only items that match this filter.
        deadline: when no further check begins, by the clock of ``time.monotonic``.
        done: what each check looked at.
        label_errors: what the check of the labels found, for the checks after it.
    """

    session: Session
    space: SpaceRecord
    label: str
    where: str | None
    deadline: float
    done: dict[str, str] = field(default_factory=dict)
    label_errors: LabelErrorReport | None = None

    def run(self) -> list[Finding]:
        """Return the findings of all checks that time allows, the worst first."""
        found: list[Finding] = []
        checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
            ("failures", self._failures),
            ("labels of equal files", self._label_conflicts),
            ("copies", self._copies),
            ("wrong labels", self._label_errors),
            ("columns", self._columns),
            ("classes", self._classes),
            *([("sizes", self._sizes), ("pictures", self._pictures)] if self._shows_pictures else []),
        )
        for name, check in checks:
            if time.monotonic() >= self.deadline:
                self.done[name] = "not run: no time was left"
                continue
            self.done[name] = "all items"
            try:
                found += check()
            except EmbedstoreError as e:
                self.done[name] = f"not run: {e}"
        return sorted(found, key=lambda f: (-f.severity, -f.count))

    def _command(self, text: str) -> str:
        """Return a command on this store."""
        verb, _, options = text.partition(" ")
        return f"embedstore {verb} {shlex.quote(str(self.session.path))} {options}".rstrip()

    def _failures(self) -> Iterator[Finding]:
        """Report items that could not be embedded."""
        with self.session.storage.catalog.read() as con:
            reasons = counts.table_counts(con)["failure_reasons"]
            source = faults.failed_source(con)
        if reasons:
            count, shown = sum(reasons.values()), ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
            plural = self.space.space.modality.plural
            things = counted(count, plural.removesuffix("s"), plural)
            text = f"{things} could not be embedded: {shown}; repair or delete the files, then embed them again"
            yield Finding("failures", 2, count, text, self._command("failures"), cure=self._embed_again(source))

    def _embed_again(self, source: str | None) -> str:
        """Return the command that embeds a source again; empty where a command line cannot name it."""
        if source is None:
            return ""
        is_file = self._shows_pictures and Path(source).is_file()  # a table of texts needs the name of its column
        can_name = is_file or Path(source).is_dir() or "://" in source
        return self._command(f"embed {shlex.quote(source)}") if can_name else ""

    def _label_conflicts(self) -> Iterator[Finding]:
        """Report files of equal bytes with different labels."""
        found = find_label_conflicts(self.session, self.label)
        if found.sentence:
            items = tuple(item for conflict in found.conflicts for item in conflict.items)
            command = self._command("duplicates --threshold 1 -o copies.html")
            cure = ""
            if len(items) <= COMMAND_ITEMS:
                unknown = shlex.quote(f"{self.label}=NULL")
                cure = self._command(f'edit --set {unknown} --where "item in ({listed_items(items)})"')
            yield Finding("labels of equal files", 3, len(items), found.sentence, command, items[:MAX_ITEMS], cure)

    def _copies(self) -> Iterator[Finding]:
        """Report copies, and those on both sides of a split."""
        found = find_duplicates(self.session.storage, self.space, DuplicateOptions(where=self.where))
        self.done["copies"] = f"{counted(found.content_count, 'content')}, cosine at least {found.threshold:g}"
        if found.cross_split_count:
            pairs = found.cross_split_pairs
            items = tuple(dict.fromkeys(i for p in pairs[:MAX_ITEMS] for i in (p.item, p.other_item)))[:MAX_ITEMS]
            text = (
                f"{counted(found.cross_split_count, 'pair')} of copies are on both sides of a split: test figures "
                "flatter"
            )
            command = self._command("duplicates --across-splits -o leaks.html")
            cure = self._command("duplicates --keep train-first --delete-extra")
            yield Finding("copies", 3, found.cross_split_count, text, command, items, cure)
        if found.extra:
            text = (
                f"{counted(len(found.extra), 'item is a copy of another', 'items are copies of others')}, in "
                f"{counted(found.group_count, 'group')}"
            )
            command = self._command("duplicates -o copies.html")
            cure = self._command("duplicates --delete-extra")
            yield Finding("copies", 1, len(found.extra), text, command, tuple(found.extra[:MAX_ITEMS]), cure)

    def _label_errors(self) -> Iterator[Finding]:
        """Report labels that disagree with the vectors."""
        report = find_label_errors(
            self.session, self.label, LabelErrorSettings(), where=self.where, space=self.space.key, separator=None
        )
        self.label_errors = report
        self.done["wrong labels"] = f"{counted(report.n_labels, 'label')}, out of fold"
        if report.issues:
            items = tuple(issue.item for issue in report.issues[:MAX_ITEMS])
            text = (
                f"{counted(len(report.issues), 'label is', 'labels are')} doubtful; look at them before you believe it"
            )
            command = self._command(f"label-errors {shlex.quote(self.label)} -o doubtful.html")
            cure = self._command("edit label-review.csv")
            yield Finding("wrong labels", 2, len(report.issues), text, command, items, cure)

    @cached_property
    def _labeled(self) -> LabeledSet:
        """The labeled items, one of each group.

        Raises:
            LabelError: if there are none, or their labels are no classes.
        """
        return LabeledSet.load(self.session.storage, self.space, self.label, self.where, self._command)

    def _columns(self) -> Iterator[Finding]:
        """Report columns that predict the label better than the vectors do."""
        if self.label_errors is None:
            self.done["columns"] = "not run: the labels were not checked"
            return
        self.done["columns"] = f"{counted(len(self._labeled.data), 'item')}, against predictions out of fold"
        yield from column_findings(self.session.storage, self._labeled, self.label_errors)

    def _classes(self) -> Iterator[Finding]:
        """Report items unlike all others, classes of two clusters, and two names for one class."""
        self.done["classes"] = extent(self._labeled)
        yield from class_findings(self._labeled)

    @property
    def _shows_pictures(self) -> bool:
        return self.space.space.modality is Modality.IMAGE

    def _sizes(self) -> Iterator[Finding]:
        """Report images of few pixels."""
        with self.session.storage.catalog.read() as con:
            total = len(queries.matching_items(con, self.where or "true"))
            wanted = set(queries.matching_items(con, self.where).tolist()) if self.where else None
            rows = faults.tiny_images(con, min_side=MIN_SIDE, limit=total)
        found = [item for item, _, _ in rows if wanted is None or item in wanted]
        if found and len(found) <= COMMON_SHARE * total:
            text = f"{_share(found, total)} tiny: the shorter side has fewer than {MIN_SIDE} pixels"
            yield self._poor_pictures("sizes", text, found)

    def _poor_pictures(self, check: str, text: str, items: list[int]) -> Finding:
        """Return the finding of pictures with one fault, with the commands that list and delete them."""
        show = self._command(f'sql "select item, uri from items where item in ({listed_items(items)})"')
        options = delete_options(items)
        cure = self._command(f"delete {options}") if options else ""
        return Finding(check, 1, len(items), text + listed_note(items), show, tuple(items[:MAX_ITEMS]), cure)

    def _pictures(self) -> Iterator[Finding]:
        """Report faults that show in the pixels of a sample, as large as time allows."""
        with self.session.storage.catalog.read() as con:
            items = queries.matching_items(con, self.where or "true")
        order = np.random.default_rng(0).permutation(items).tolist()
        faults: dict[Fault, list[int]] = defaultdict(list)
        seen = 0
        for begin in range(0, len(order), _BLOCK):
            if time.monotonic() >= self.deadline:
                break
            block = order[begin : begin + _BLOCK]
            for item, facts in zip(block, measure_images(self.session.storage, block), strict=True):
                seen += facts is not None
                for fault in facts.faults if facts else ():
                    faults[fault].append(item)
        self.done["pictures"] = f"{seen:,} of {counted(len(order), 'image')}"
        for fault, found in faults.items():
            if len(found) <= COMMON_SHARE * seen:
                yield self._poor_pictures("pictures", _fault_text(fault, found, seen), sorted(found))


def _share(found: list[int], total: int) -> str:
    """Return how many of all images are, as the begin of a sentence."""
    return f"{len(found):,} of {counted(total, 'image')} {'is' if len(found) == 1 else 'are'}"


def _fault_text(fault: Fault, found: list[int], total: int) -> str:
    """Return how many of all images have a fault."""
    one = len(found) == 1
    if fault is Fault.EMPTY:
        return f"{len(found):,} of {counted(total, 'image')} {'has' if one else 'have'} {fault}"
    return f"{_share(found, total)} {'a scan of text' if one and fault is Fault.TEXT else fault}"


def checkup(session: Session, label: str, *, budget: float, where: str | None, space: str | None) -> CheckupReport:
    """Check a set of images; see :meth:`embedstore.Store.checkup`."""
    if not budget > 0:
        raise BadOption(f"the budget is a time above 0 seconds, not {budget:g}")
    begin, record = time.monotonic(), session.space(space)
    settings = {"label": label, "where": where, "budget": budget}

    def check() -> CheckupReport:
        run = _Checkup(session, record, label, where, begin + budget)
        findings = tuple(run.run())
        return CheckupReport(findings, run.done, round(time.monotonic() - begin, 3))

    return session.recorded("checkup", record, settings, check)
