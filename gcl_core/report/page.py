"""One HTML page about a finished run: what its model is worth, for whom the pictures are."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from gcl_core.inference.saved import SavedModel
from gcl_core.methods.registry import METHODS
from gcl_core.methods.settings import to_dict
from gcl_core.report.findings import findings, nearest, surest_mistakes
from gcl_core.training.evaluation import outputs_of

CONFUSIONS = 12  # pairs that the page names
UNFOLDED = 30  # classes; of more, the tables are folded by group
LONGEST_SIDE = 128  # pixels of a thumbnail
TINY = 64  # pixels; below, a thumbnail is enlarged without blur and kept without loss

Pictures = Callable[[str, int], Image.Image]  # of ("train" or "test", index in that part)


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
    said: str
    probability: float
    picture: Thumbnail
    nearest_class: str
    nearest_picture: Thumbnail
    cosine: float


def report(model: SavedModel, dataset: LongTailedDataset, pictures: Pictures | None = None) -> str:
    """A self-contained HTML page: no script, no network, thumbnails inside.

    Args:
        model: of the run.
        dataset: its images.
        pictures: what to show of them, where it is not their pixels.

    Raises:
        GCLError: the data set has other classes, or images of another shape, than the run.
    """
    if dataset.class_names != model.class_names:
        odd = sorted(set(dataset.class_names) ^ set(model.class_names))
        raise GCLError(
            f"{dataset.name} has other classes than {model.path}: {', '.join(odd[:5]) or 'order'}"
        )
    if dataset.test.images.shape != model.shape:
        sizes = ("x".join(map(str, each)) for each in (dataset.test.images.shape, model.shape))
        raise GCLError(
            f"images of {dataset.name} are {next(sizes)}, those of {model.path} are {next(sizes)}"
        )
    train, test = (_features(model, part, dataset) for part in (dataset.train, dataset.test))
    with torch.no_grad():
        outputs = model.network.head(test).double()
    slope, offset = model.terms()
    probabilities = (slope * outputs + offset).softmax(1)
    found = findings(probabilities, dataset.test.labels, model.class_names, model.class_counts)
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template.filters |= {"percent": percent, "number": "{:,}".format}
    page = template.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))
    identity = load_json(model.path / "settings.json")["identity"]
    return page.render(
        found=found,
        groups=[group for group in GROUPS if any(c.group == group for c in found.classes)],
        model=model,
        dataset=dataset,
        method=method_of(model.settings),
        epochs=[stage["epochs"] for stage in _stages(model.settings)],
        same_images=identity["images"]["fingerprint"] == dataset.fingerprint,
        confusions=found.confusions[:CONFUSIONS],
        mistakes=_mistakes(probabilities, train, test, dataset, pictures),
        unfolded=len(found.classes) <= UNFOLDED,
        version=gcl_core.__version__,
    )


def _features(model: SavedModel, part: Split, dataset: LongTailedDataset) -> Tensor:
    with torch.no_grad():
        return outputs_of(model.network.features, part, dataset, torch.device("cpu"))


def _stages(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [settings[name] for name in ("stage1", "stage2") if settings[name]]


def method_of(settings: dict[str, Any]) -> str:
    """The methods that have the parts of these settings, `gcl_crt`; else the objectives' names."""

    def parts(head: str, stages: Sequence[dict[str, Any]]) -> list[Any]:
        kinds = ("objective", "class_weights", "sampler", "rebalance")
        return [head] + [
            [(stage[kind] or {}).get("name") for kind in kinds]
            + [stage["deferred"] > 0, stage["mixup_alpha"] > 0]
            for stage in stages
        ]

    own = parts(settings["head"], _stages(settings))
    same = [
        name
        for name, method in METHODS.items()
        if parts(method.head, [to_dict(s) for s in (method.stage1, method.stage2) if s]) == own
    ]
    return " or ".join(same) or ", then ".join(
        stage["objective"]["name"] for stage in _stages(settings)
    )


def _mistakes(
    probabilities: Tensor,
    train: Tensor,
    test: Tensor,
    dataset: LongTailedDataset,
    pictures: Pictures | None,
) -> list[Mistake]:
    chosen = surest_mistakes(probabilities, dataset.test.labels)
    if not chosen:
        return []

    def shown(part: str, index: int) -> Thumbnail:
        if pictures is not None:
            return thumbnail(pictures(part, index))
        return thumbnail(_pixels(getattr(dataset, part), index))

    names = dataset.class_names
    confidence, said = probabilities[chosen].max(1)
    index, cosine = nearest(test[chosen], train)
    return [
        Mistake(
            image,
            names[int(dataset.test.labels[image])],
            names[guess],
            probability,
            shown("test", image),
            names[int(dataset.train.labels[neighbour])],
            shown("train", neighbour),
            likeness,
        )
        for image, guess, probability, neighbour, likeness in zip(
            chosen, *(each.tolist() for each in (said, confidence, index, cosine)), strict=True
        )
    ]


def _pixels(part: Split, index: int) -> Image.Image:
    (pixels,) = next(part.images.batches([torch.tensor([index])]))
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).cpu().numpy())


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
    """`53.2 %`; a dash where nothing is known."""
    return "–" if share is None else f"{100 * share:.1f} %"
