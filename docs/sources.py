"""What the pages are read from, brought into the form that Sphinx expects."""

import re
from pathlib import Path
from typing import Any

import nbformat
from moving import BELOW
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from sphinx.application import Sphinx

CONTENTS = Path(__file__).parent / "contents.md"
PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">\s*'
    r'<img alt="(?P<alt>[^"]*)" src="(?P<light>[^"]+)">\s*</picture>'
)
WIDGET = "application/vnd.jupyter.widget-view+json"


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter this extension in Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("source-read", as_two_images)
    app.connect("autodoc-skip-member", imported_is_not_ours)
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the front page the list of all pages, which the README itself has no use for."""
    if docname == app.config.root_doc:
        source[0] += CONTENTS.read_text()
    app.env.note_dependency(str(CONTENTS))


def as_two_images(app: Sphinx, docname: str, source: list[str]) -> None:
    """A picture for light and dark pages as two images, of which the theme shows the one."""
    both = r"![\g<alt>](\g<light>){.only-light}\n![\g<alt>](\g<dark>){.only-dark}"
    source[0] = PICTURE.sub(both, source[0])


def read_notebook(text: str) -> NotebookNode:
    """A notebook whose figures keep their alternative texts, and without its widgets.

    MyST-NB takes the alternative text from the cell's metadata, IPython writes it into the
    output's. A widget needs a kernel, which a page does not have: there the cell's figure stands,
    and below it a picture that moves, if there is one.
    """
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.pop("widgets", None)
    cells, notebook.cells = notebook.cells, []
    for cell in cells:
        moving = [name for figure, name in BELOW.items() if f'"{figure}"' in cell.source]
        pictures = [new_markdown_cell(f"```{{moving}} {name}\n```") for name in moving]
        notebook.cells += [cell, *(pictures if cell.cell_type == "code" else [])]
        outputs = [o for o in cell.get("outputs", []) if WIDGET not in o.get("data", {})]
        if "outputs" in cell:
            cell.outputs = outputs
        for output in outputs:
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return notebook


def imported_is_not_ours(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out early what a module imports; looking at some of it is enough for a warning."""
    module = getattr(thing, "__module__", None)
    foreign = isinstance(module, str) and module.partition(".")[0] != "gcl_core"
    return True if what == "module" and foreign else None


def as_plain_text(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are written as plain text: formulas on lines of their own stay as they are.

    A bar is the bar of an absolute value, not of a substitution.
    """
    formula, above, out = False, "", []
    for line in lines:
        if line.startswith("    ") and not formula and not out[-1] and not above.startswith(" "):
            formula = True
            out += ["::", ""]
        elif line and not line.startswith(" "):
            formula = False
        out.append(line if formula else line.replace("|", r"\|"))
        above = line or above
    lines[:] = out
