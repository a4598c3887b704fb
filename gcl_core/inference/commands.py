"""The commands of a finished run: `predict` names the class of pictures, `export` writes it out."""

import argparse
import csv
import io
import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from gcl_core.bars import Bar
from gcl_core.data.image_files import images_inside
from gcl_core.errors import GCLError, shown
from gcl_core.files import at_home, atomic_write, prepare
from gcl_core.hardware import use_threads
from gcl_core.inference.export import export_run
from gcl_core.inference.saved import Predictions, SavedModel, load_run

log = logging.getLogger(__name__)

PRIORS = ("training", "uniform")
TOGETHER = 64  # pictures in memory


def predict(options: argparse.Namespace) -> int:
    """Print, or write, the classes of pictures; returns 0 if all of them can be read."""
    model = load_run(options.folder)
    model.require_pictures()
    prior = options.prior
    if prior not in (None, *PRIORS):
        prior = read_prior(Path(prior))
    model.terms(prior)  # what is wrong with it is said before pictures are read
    if options.csv:
        prepare(options.csv)
    use_threads(None, model.settings["network"])
    given = [at_home(path) for path in options.images]
    files = [f for p in given for f in (images_inside(p) if p.is_dir() else [str(p)])]
    width = max(len(shown(str(file))) for file in files)
    rows: list[tuple[str, list[tuple[str, float]]]] = []
    unreadable: list[str] = []
    seen = sys.stdout.isatty() and not options.json  # then the lines themselves say how far it is
    with Bar("pictures", len(files), "picture", "none" if seen else "auto") as bar:
        for start in range(0, len(files), TOGETHER):
            some = files[start : start + TOGETHER]
            readable, predictions = _predicted(model, some, prior, unreadable)
            for file, best in zip(readable, predictions.top(options.top), strict=True):
                rows.append((file, best))
                if not options.json:
                    print(_line(file, best, width, max(map(len, model.class_names))))
            bar.update(len(some))
    if options.csv:
        atomic_write(options.csv, _csv(rows, min(options.top, len(model.class_names))).encode())
    fitted = model.calibration
    if options.json:
        every = [
            {"image": file, "classes": [{"class": name, "probability": p} for name, p in best]}
            for file, best in rows
        ]
        about = {"run": str(options.folder), "calibrated": fitted is not None}
        print(json.dumps(about | {"predictions": every, "unreadable": unreadable}))
    if fitted is None:
        log.info(
            "probabilities are not calibrated: they rank the classes, but are no frequencies; "
            "train with validation images for that (split SOURCE OUT --validation 0.1)"
        )
    else:
        said = fitted.images, options.prior or "as the run's loss assumes"
        log.info("probabilities are calibrated on %d validation images; class shares: %s", *said)
    if unreadable:
        log.error("%d of %d pictures could not be read", len(unreadable), len(files))
    return 1 if unreadable else 0


def _predicted(
    model: SavedModel, files: Iterable[str], prior: Any, unreadable: list[str]
) -> tuple[list[str], Predictions]:
    """Those of the files that can be read, and their predictions; the others are named."""
    pixels = []
    for file in files:
        try:
            pixels.append((shown(file), model.pixels(file)))
        except GCLError as error:
            log.error("%s", error)
            unreadable.append(shown(file))
    if not pixels:
        return [], Predictions(torch.empty(0, len(model.class_names)), model.class_names)
    readable, stacked = zip(*pixels, strict=True)
    return list(readable), model.predict(torch.stack(stacked), prior)


def _line(file: str, best: list[tuple[str, float]], width: int, names: int) -> str:
    (name, probability), *others = best
    following = ", ".join(f"{name} {100 * p:.1f} %" for name, p in others)
    return f"{file:{width}}  {name:{names}}  {100 * probability:5.1f} %  {following}".rstrip()


def _csv(rows: list[tuple[str, list[tuple[str, float]]]], top: int) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    places = ["", *(f"_{number}" for number in range(2, top + 1))]
    writer.writerow(["image", *(f"{what}{n}" for n in places for what in ("class", "probability"))])
    for file, best in rows:
        writer.writerow([file, *(value for pair in best for value in pair)])
    return text.getvalue()


def read_prior(file: Path) -> dict[str, float]:
    """Shares by class name from a CSV file with the columns class and share.

    Raises:
        GCLError: the file cannot be read, or a line is none of these; a class named twice.
    """
    try:
        lines = list(csv.DictReader(at_home(file).read_text("utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise GCLError(
            f"cannot read {file}: {error}; prior is training, uniform, or a CSV file with the "
            "columns class,share"
        ) from error
    found: dict[str, float] = {}
    for number, line in enumerate(lines, 2):
        try:
            name, share = line["class"], float(line["share"])
        except (KeyError, TypeError, ValueError) as error:
            raise GCLError(
                f"{file}, line {number}: needs the columns class,share, such as cat,0.25"
            ) from error
        if name in found:
            raise GCLError(f"{file}, line {number}: class {name!r} is named twice")
        found[name] = share
    return found


def export(options: argparse.Namespace) -> None:
    """Write a run in another format."""
    model = load_run(options.folder)
    use_threads(None, model.settings["network"])
    print(export_run(model, options.format, options.out))
