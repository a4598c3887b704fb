"""Figures as files, and what the file beside a figure says of its runs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import gcl_core
from gcl_core.figures.dark import in_dark
from gcl_core.figures.looks import style
from gcl_core.files import atomic_json, atomic_write
from gcl_core.training.two_stages import Run


def drawn(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG, or another `format` of `Figure.savefig`, in the one style."""
    data = io.BytesIO()
    with style():
        figure.savefig(data, **{"format": "png", "metadata": {"Software": None}, **options})
    return data.getvalue()


def save_figure(
    figure: Figure, folder: Path, name: str, about: Mapping[str, Any], *, dark: bool = False
) -> None:
    """Write `name.svg`, `name.png` (150 dpi) and `name.json`, each whole or not at all.

    The same figure gives the same bytes: no date, and identifiers in the SVG from a fixed salt.

    Args:
        figure: made by a function of `gcl_core.figures`.
        folder: is made if it is not there.
        name: file name without suffix.
        about: what the figure shows, as plain values; the version of gcl_core is added.
        dark: also write `name-dark.svg` and `name-dark.png`, for dark pages; the figure stays dark.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for page in ("", "-dark") if dark else ("",):
        if page:
            in_dark(figure)
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            data = drawn(figure, format=suffix, dpi=150, metadata=metadata)
            atomic_write(folder / f"{name}{page}.{suffix}", data)
    atomic_json(folder / f"{name}.json", {"gcl_core": gcl_core.__version__, **about})


def about_runs(*groups: Sequence[Run]) -> dict[str, Any]:
    """What the JSON beside a figure says of the runs in it: their folders' names and settings.

    Data are named by their name and fingerprint; no path of this machine is in it.
    """
    last = {run.path.name: run.folders[-1] for runs in groups for run in runs}
    return {"runs": {name: {**folder.about, **folder.identity} for name, folder in last.items()}}
