"""One HTML page about a finished run, for those who want to know what the model is worth."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image
from torch import Tensor

import gcl_core
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.imbalance import GROUPS
from gcl_core.errors import GCLError
from gcl_core.files import load_json
from gcl_core.hardware import device_kind
from gcl_core.inference.saved import SavedModel
from gcl_core.methods.registry import METHODS
from gcl_core.methods.settings import to_dict
from gcl_core.report.findings import Findings, findings, nearest, surest_mistakes
from gcl_core.training.features import features_of
from gcl_core.training.two_stages import make_fabric

CONFUSIONS = 12  # pairs that the page names
UNFOLDED = 30  # classes; of more, the tables are folded by group
LONGEST_SIDE = 128  # pixels of a thumbnail
TINY = 64  # pixels; below, a thumbnail is enlarged without blur and kept without loss


@dataclass(frozen=True)
class Thumbnail:
    """A picture for the page: a data URI, and whether it has few enough pixels to show each."""

    uri: str
    tiny: bool


@dataclass(frozen=True)
class Mistake:
    """A test image that was taken for another class, and the training image most like it.

    Attributes:
        probability: of the class that was said.
        cosine: between the features of both images.
    """

    image: int
    true: str
    picture: Thumbnail
    said: str
    probability: float
    nearest_class: str
    nearest_picture: Thumbnail
    cosine: float


def report(model: SavedModel, dataset: LongTailedDataset) -> str:
    """A self-contained HTML page of a run and its images: no script, no network, thumbnails inside.

    Raises:
        GCLError: the data set has other classes, or images of another shape, than the run.
    """
    _check(model, dataset)
    # Other images have other statistics; the network is used to those of its training.
    dataset = replace(dataset, mean=model.mean, std=model.std)
    train, test = _features(model, dataset)
    with torch.no_grad():
        outputs = model.network.head(test).double()

    def found_under(prior: str | None) -> tuple[Tensor, Findings]:
        slope, offset = model.terms(prior)
        probabilities, labels = (slope * outputs + offset).softmax(1), dataset.test.labels
        names, counts = model.class_names, model.class_counts
        return probabilities, findings(probabilities, labels, names, counts)

    probabilities, found = found_under(None)
    return _template().render(
        found=found,
        training=found_under("training")[1] if model.calibration else None,
        uniform=found_under("uniform")[1] if model.calibration else None,
        groups=[group for group in GROUPS if any(c.group == group for c in found.classes)],
        model=model,
        dataset=dataset,
        method=method_of(model.settings),
        epochs=[stage["epochs"] for stage in _stages(model.settings)],
        same_images=_fingerprint(model.path / "settings.json") == dataset.fingerprint,
        confusions=found.confusions[:CONFUSIONS],
        mistakes=_mistakes(probabilities, train, test, dataset),
        unfolded=len(found.classes) <= UNFOLDED,
        version=gcl_core.__version__,
    )


def _fingerprint(file: Path) -> str:
    try:
        return str(load_json(file)["identity"]["images"]["fingerprint"])
    except (LookupError, TypeError) as error:
        raise GCLError(f"{file} does not say which images the run had: is it damaged?") from error


def _check(model: SavedModel, dataset: LongTailedDataset) -> None:
    if dataset.class_names != model.class_names:
        odd = sorted(set(dataset.class_names) ^ set(model.class_names))
        names = ", ".join(odd[:5]) or "the same ones in another order"
        raise GCLError(f"{dataset.name} has not the classes of {model.path}: {names}")
    own, shape = dataset.test.images.shape, tuple(model.shape)
    if own != shape:
        raise GCLError(f"images of {dataset.name} are {own}, those of {model.path} were {shape}")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": "{:,}".format}
    return environment.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))


def _features(model: SavedModel, dataset: LongTailedDataset) -> tuple[Tensor, Tensor]:
    """(N, D) of the training and of the test images, in the precision of training."""
    if dataset.has_pixels:
        device = device_kind("auto", model.settings["network"])
        fabric = make_fabric(device, model.settings["precision"])
        dataset = features_of(dataset, model.network.backbone, fabric, "auto")
    return dataset.train.images.pixels.flatten(1), dataset.test.images.pixels.flatten(1)


def _stages(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [settings[name] for name in ("stage1", "stage2") if settings[name]]


def method_of(settings: dict[str, Any]) -> str:
    """The methods that have the parts of these settings, `gcl_crt`; else the objectives' names."""

    def parts(head: str, stages: Sequence[dict[str, Any]]) -> list[Any]:
        kinds = ("objective", "class_weights", "sampler", "rebalance")
        return [head] + [
            [(stage[kind] or {}).get("name") for kind in kinds] + [stage["mixup_alpha"] > 0]
            for stage in stages
        ]

    stages = _stages(settings)
    own = parts(settings["head"], stages)
    same = [
        name
        for name, method in METHODS.items()
        if parts(method.head, [to_dict(s) for s in (method.stage1, method.stage2) if s]) == own
    ]
    return " or ".join(same) or ", then ".join(stage["objective"]["name"] for stage in stages)


def _mistakes(
    probabilities: Tensor, train: Tensor, test: Tensor, dataset: LongTailedDataset
) -> list[Mistake]:
    names, chosen = dataset.class_names, surest_mistakes(probabilities, dataset.test.labels)

    def shown(part: Split, image: int) -> tuple[str, Thumbnail]:
        return names[int(part.labels[image])], thumbnail(part.images.picture(image))

    columns = (*probabilities[chosen].max(1), *nearest(test[chosen], train))
    return [
        Mistake(i, *shown(dataset.test, i), names[guess], p, *shown(dataset.train, j), likeness)
        for i, p, guess, j, likeness in zip(chosen, *(c.tolist() for c in columns), strict=True)
    ]


def thumbnail(picture: Image.Image) -> Thumbnail:
    """A picture small enough for a page of many: PNG if it is tiny, else JPEG."""
    tiny = max(picture.size) < TINY
    if not tiny:
        picture = picture.convert("RGB")
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG" if tiny else "JPEG", quality=80, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return Thumbnail(f"data:image/{'png' if tiny else 'jpeg'};base64,{data}", tiny)


def percent(share: float | None) -> str:
    """`53.2 %` that no line break parts; a dash where nothing is known."""
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
