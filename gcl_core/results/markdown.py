"""Markdown from rows of text."""

import re
from collections.abc import Container, Iterable, Sequence

from gcl_core.errors import shown


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], texts: Container[str] = ()
) -> str:
    """A Markdown table; the first column is text, the others are numbers.

    Cells are Markdown; what a user has named, such as classes, goes through `as_text` before.

    Args:
        texts: headings of further columns of text.
    """
    lines = ["| " + " | ".join(headings) + " |"]
    lines.append("|---|" + "".join("---|" if h in texts else "---:|" for h in headings[1:]))
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def as_text(name: str) -> str:
    """Markdown that shows a name as it is, in one line: no markup, mathematics or HTML in it."""
    return re.sub(r"([\\`*_{}\[\]<>|$~#&!])", r"\\\1", shown(name))
