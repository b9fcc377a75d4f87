"""An extension of griffe for the documentation site: roles and literal blocks in docstrings become Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([\w.]+)`")


class DocstringRoles(griffe.Extension):
    """Replace ``:meth:`~package.module.name``` by the last name in code type, as IDEs show it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", obj.docstring.value)
            obj.docstring.value = text.replace("\n::\n", "\n")  # the mark of a literal block
