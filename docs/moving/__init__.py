"""Pictures that move, on pages without a kernel: `{moving} NAME` in a page or a notebook's text."""

from functools import cache
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

# Module and function of each; a page without a picture does not import torch.
PICTURES = {
    "tilt": ("tilt", "digits"),
    "tilt-photographs": ("tilt", "photographs"),
    "cloud": ("cloud", "picture"),
    "plane": ("plane", "picture"),
    "samplers": ("sampling", "picture"),
}
# The picture that stands below a figure of a notebook, by the figure's name.
BELOW = {
    "00_tilt": "tilt",
    "02_circle": "cloud",
    "04_samplers": "samplers",
    "05_plane_by_epoch": "plane",
    "lab_plane": "plane",
    "lab_tilt": "tilt-photographs",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter this extension in Sphinx."""
    app.add_directive("moving", Moving)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Moving(Directive):
    """The picture of a name, drawn as the page is read."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in PICTURES:
            raise self.error(f"there is no picture {name!r}; there are {', '.join(PICTURES)}")
        return [nodes.raw("", html_of(name), format="html")]


@cache
def html_of(name: str) -> str:
    """A picture as HTML."""
    module, function = PICTURES[name]
    return getattr(import_module(f"moving.{module}"), function)().html()
