"""What Sphinx does not check: pages as a browser gets them, without a network.

Every finding is a warning, and `make site` takes warnings for errors.
"""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "srcset"}
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
    pages = {file: BeautifulSoup(file.read_text(), "html.parser") for file in site.rglob("*.html")}
    anchors = {
        file: {tag["id"] for tag in page.find_all(id=True)}
        | {tag["name"] for tag in page.find_all("a", attrs={"name": True})}
        for file, page in pages.items()
    }
    found = []
    for file, page in sorted(pages.items()):
        where = file.relative_to(site)
        for image in page.find_all("img"):
            if not image.get("alt", "").strip():
                found.append(f"{where}: image without an alternative text: {image.get('src')}")
        for name, attribute in LOADS.items():
            for tag in page.find_all(name, attrs={attribute: True}):
                if _remote(tag[attribute]) and _is_loaded(tag):
                    found.append(f"{where}: needs a network: {tag[attribute]}")
        for link in page.find_all(["a", *LOADS]):
            target = link.get("href") or link.get("src")
            if target and not _leads_somewhere(file, target, anchors):
                found.append(f"{where}: link to nothing: {target}")
    return found


def _remote(target: str) -> bool:
    return target.startswith("//") or urlsplit(target).scheme in ("http", "https")


def _is_loaded(tag: Tag) -> bool:
    """Whether a browser fetches it by itself: all of these but links to relatives."""
    return tag.name != "link" or bool({"stylesheet", "icon", "preload"} & set(tag.get("rel", [])))


def _leads_somewhere(file: Path, target: str, anchors: dict[Path, set[str]]) -> bool:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return True
    goal = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not goal.is_file():
        return False
    return not parts.fragment or goal not in anchors or unquote(parts.fragment) in anchors[goal]
