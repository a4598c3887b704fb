"""Ten slides in one HTML file that needs no network, from the lab's pictures (`make slides`).

    python docs/slides/make.py --out build/slides.html

`slides.md` has a slide between two lines `---`. An image names a notebook and how the alternative
text of one of its pictures begins, so that the slides show what the notebook shows.
"""

import argparse
import re
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt

from gcl_core.errors import GCLError
from gcl_core.files import atomic_write
from gcl_core.results.found import found_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IMAGE = re.compile(r"!\[(.+?)\]\((.+?\.ipynb)\)")


def slides() -> str:
    """The page.

    Raises:
        GCLError: a picture that no output of its notebook is, or that several are.
    """
    text = (HERE / "slides.md").read_text(encoding="utf-8")
    text = IMAGE.sub(_embedded, text.replace("<!-- found -->", found_table(ROOT / "results")))
    parts = re.split(r"^---$", text, flags=re.MULTILINE)
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.validateLink = lambda url: True  # by itself it takes no image that is in the text
    sections = [f"<section>\n{markdown.render(part)}</section>" for part in parts]
    return (HERE / "page.html").read_text(encoding="utf-8").replace("SLIDES", "\n".join(sections))


def _embedded(image: re.Match[str]) -> str:
    start, name = image.groups()
    outputs = [o for c in nbformat.read(ROOT / name, 4).cells for o in c.get("outputs", [])]
    pictures = {
        output["metadata"]["image/png"]["alt"]: output["data"]["image/png"]
        for output in outputs
        if "image/png" in output.get("data", {})
    }
    found = [alt for alt in pictures if alt.startswith(start)]
    if len(found) != 1:
        raise GCLError(f"{len(found)} pictures of {name} begin with {start!r}; name one of them")
    return f"![{found[0]}](data:image/png;base64,{pictures[found[0]].replace(chr(10), '')})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "slides.html")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, slides().encode())
    print(out)
