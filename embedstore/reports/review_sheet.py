"""A page on which a person reviews doubtful labels; what is ticked is saved as a table that `edit` reads."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence

from embedstore.classify.evaluation.label_errors import LabelErrorReport, LabelIssue
from embedstore.reports.contact_sheet import PAGE_STYLE, figure_html, with_files
from embedstore.reports.html_page import html_page
from embedstore.reports.item_images import ImageReader
from embedstore.tables import csv_text
from embedstore.types import Hit
from embedstore.wording import counted

FILE_NAME = "label-review.csv"


def label_error_summary(report: LabelErrorReport) -> str:
    """Return in one line how many labels are doubtful, and what is known of the share of wrong labels."""
    return (
        f"{len(report.issues)} of {counted(report.n_labels, 'label')} are doubtful ({report.head}, {report.folds} "
        f"folds, {report.seconds:.2f} s); {_error_share(report)}"
    )


def _error_share(report: LabelErrorReport) -> str:
    """Return what is known of the share of wrong labels."""
    limit = report.error_rate_interval[1]
    if report.error_rate is None:
        return (
            f"at most {limit:.1%} of the labels are wrong; {report.head} itself is wrong too often to tell how many "
            "of these are errors of the labels"
        )
    return f"about {report.error_rate:.1%} of the labels are estimated to be wrong (0% to {limit:.1%})"


def review_sheet_html(
    issues: Sequence[LabelIssue], label: str, uris: Mapping[int, str], read_images: ImageReader, *, summary: str = ""
) -> str:
    """Return the page: per item the picture, "labeled X, looks like Y", and a box for each of the two answers.

    A button saves the items that are ticked as wrong as a CSV file with the columns ``item``, ``uri`` and the label.
    The page also shows the command that reads it, and the one that records the items that are ticked as right. An item
    of several labels has no boxes: its new list of labels is not known from one answer.

    Args:
        issues: the issues in the order to show.
        label: the column.
        uris: the uris of the items.
        read_images: reads the images of items.
        summary: what is known of all labels, above the pictures.
    """
    hits = [Hit(n, i.score, i.item, uris.get(i.item, ""), i.description, None) for n, i in enumerate(issues, 1)]
    figures = [
        figure_html(hit, data, _boxes(issue, label, hit.uri))
        for issue, (hit, data) in zip(issues, with_files(hits, read_images), strict=True)
    ]
    title = f"labels to check: {label}"
    column, header = shlex.quote(label), html.escape(_table([_row(0, "", label, "")])[0], quote=True)
    commands = (
        f'<p><button id="save" data-header="{header}" data-file="{FILE_NAME}">Save {FILE_NAME}</button> '
        f"<span id='count'></span></p>\n<p>then <code>embedstore edit STORE {FILE_NAME}</code></p>\n"
        f'<p id="right" hidden>and <code>embedstore label-errors STORE {html.escape(column)} --confirm '
        "<span></span></code></p>"
    )
    heading = f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(summary)}</p>"
    body = f"{heading}\n{commands}\n<main>\n{chr(10).join(figures)}\n</main><script>{_SCRIPT}</script>"
    return html_page(title, body, style=PAGE_STYLE + _STYLE)


def _row(item: int, uri: str, label: str, value: str) -> dict[str, object]:
    return {"item": item, "uri": uri, label: value}


def _table(rows: Sequence[dict[str, object]]) -> list[str]:
    """Return the lines of a CSV table, each with its line break; a cell may hold line breaks of its own."""
    header = csv_text([dict.fromkeys(rows[0], "")]).split("\r\n")[0] + "\r\n"
    return [header, *(csv_text([row])[len(header) :] for row in rows)]


def _boxes(issue: LabelIssue, label: str, uri: str) -> str:
    """Return the two boxes of an item: the label is wrong, or it is right."""
    if issue.given_label is None or issue.suggested_label is None:
        return ""
    line = html.escape(_table([_row(issue.item, uri, label, issue.suggested_label)])[1], quote=True)
    wrong, right = (html.escape(name) for name in (issue.suggested_label, issue.given_label))
    return (
        f'<br><label><input type="checkbox" class="wrong" data-row="{line}"> it is {wrong}</label> '
        f'<label><input type="checkbox" class="right" data-item="{issue.item}"> {right} is right</label>'
    )


_STYLE = (
    "figcaption label{display:block;cursor:pointer} p{font:14px/1.45 system-ui,sans-serif} "
    "button{font:inherit;padding:4px 10px}"
)

_SCRIPT = """
const ticked = kind => [...document.querySelectorAll("input." + kind + ":checked")];
function show() {
  const wrong = ticked("wrong").length;
  document.getElementById("count").textContent = wrong + (wrong === 1 ? " label to change" : " labels to change");
  const right = document.getElementById("right");
  right.hidden = !ticked("right").length;
  right.querySelector("span").textContent = ticked("right").map(box => box.dataset.item).join(",");
}
document.addEventListener("change", event => {
  const other = event.target.closest("figure").querySelector(event.target.className === "wrong" ? ".right" : ".wrong");
  if (event.target.checked) other.checked = false;
  show();
});
document.getElementById("save").addEventListener("click", event => {
  const text = event.target.dataset.header + ticked("wrong").map(box => box.dataset.row).join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = event.target.dataset.file;
  link.click();
});
show();
"""
