"""What Sphinx does not check: pages as a browser gets them, without a network.

Every finding is a warning, and `make site` takes warnings for errors.
"""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

LOADED = {"img", "script", "iframe", "source", "video", "audio", "embed"}
LOADED_LINKS = {"stylesheet", "icon", "preload"}  # a browser fetches these links by itself
log = getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter this extension in Sphinx."""
    app.connect("build-finished", check_pages, priority=900)  # after all files are copied
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def check_pages(app: Sphinx, error: Exception | None) -> None:
    """Warn of everything that `problems` finds."""
    if error is None and app.builder.format == "html":
        for problem in problems(Path(app.outdir)):
            log.warning("%s", problem)


def problems(site: Path) -> list[str]:
    """Dead links inside the site, images without alternative text, and what needs a network."""
    pages = {file.resolve(): Page(file) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        said = [f"image without an alternative text: {image}" for image in page.silent]
        said += [f"needs a network: {target}" for target in page.loaded if _is_remote(target)]
        said += [
            f"link to nothing: {target}"
            for target in page.links | page.loaded
            if not _is_remote(target) and not _leads_somewhere(file, target, pages)
        ]
        found += [f"{file.relative_to(site.resolve())}: {text}" for text in sorted(said)]
    return found


class Page(HTMLParser):
    """What a page refers to.

    Attributes:
        anchors: what a link can lead to in it.
        links: where its links lead.
        loaded: what a browser fetches to show it.
        silent: its images without an alternative text.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.silent: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what one element refers to; the parser calls it for each."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        by_itself = tag in LOADED or not LOADED_LINKS.isdisjoint(values.get("rel", "").split())
        for name in ("href", "src"):
            if values.get(name):
                (self.loaded if by_itself else self.links).add(values[name])
        source = values.get("src", "")
        # Docutils puts the name of the file where there is no text.
        if tag == "img" and values.get("alt", "").strip() in ("", source):
            self.silent.add(source)


def _is_remote(target: str) -> bool:
    parts = urlsplit(target)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def _leads_somewhere(file: Path, target: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(target)
    if parts.scheme:  # mailto:, data:
        return True
    goal = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not parts.fragment or goal not in pages:
        return goal.is_file()
    return unquote(parts.fragment) in pages[goal].anchors
