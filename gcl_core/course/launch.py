"""How a notebook of the lab starts where nothing is installed: a link to Colab, and the package.

The repository's address is one setting: `Repository` under `[project.urls]` in pyproject.toml.
Without it there is no link, and nothing that the package could be installed from.
"""

import re
import tomllib
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from gcl_core.errors import GCLError

LAUNCH = "launch"  # the tag of the cells that are put in here, and are not in a notebook's text
# Not with [study]: its IPython and ipykernel would replace those that Colab itself runs on.
INSTALL = """# Where the package is missing, as in Colab, it is installed first.
from importlib.util import find_spec

if find_spec("gcl_core") is None:
    %pip install --quiet 'gcl-core @ git+https://github.com/{name}' matplotlib seaborn ipywidgets"""


def is_launch(cell: NotebookNode) -> bool:
    """Whether a cell was put in by `with_launch`."""
    return LAUNCH in cell.metadata.get("tags", [])


def repository(root: Path) -> str | None:
    """`OWNER/NAME` of the project's repository on GitHub; None where no address is set.

    Raises:
        GCLError: an address that Colab cannot open.
    """
    settings = root / "pyproject.toml"
    if not settings.exists():
        return None
    urls = tomllib.loads(settings.read_text(encoding="utf-8")).get("project", {}).get("urls", {})
    address = urls.get("Repository")
    if address is None:
        return None
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    if found is None or found[1] == "OWNER/NAME":
        raise GCLError(
            f"Repository is {address!r} in {settings}; Colab opens https://github.com/OWNER/NAME, "
            "with the names of an owner and a repository that are there; or leave the line out"
        )
    return found[1]


def with_launch(notebook: NotebookNode, name: str, path: str) -> NotebookNode:
    """The notebook with a link to itself in Colab below its title, and a cell that installs.

    Args:
        notebook: as its text has it.
        name: `OWNER/NAME`.
        path: of the notebook in the repository.
    """
    link = f"https://colab.research.google.com/github/{name}/blob/main/{path}"
    about = {"tags": [LAUNCH]}
    notebook.cells[1:1] = [
        new_markdown_cell(f"**[▶ Open in Colab]({link})**", id="launch-link", metadata=about),
        new_code_cell(INSTALL.format(name=name), id="launch-install", metadata=about),
    ]
    return notebook
