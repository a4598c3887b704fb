"""A finished run's `model.pt`, and new pictures through it.

The file holds all that a prediction needs, as tensors and plain values, so that the run's folder
can be moved to another machine, where the training images are not.
"""

import errno
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.epoch import normaliser
from gcl_core.data.image_files import decode, pillow_warnings
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.data.sources import absolute
from gcl_core.errors import GCLError, shown
from gcl_core.files import at_home, atomic_save, load_json, load_tensors
from gcl_core.hardware import channels_last, inference_batch
from gcl_core.inference.calibration import Calibration, fit_calibration, offsets, shares
from gcl_core.methods.rebalance import REBALANCERS, RebalanceInputs
from gcl_core.methods.settings import Settings, to_dict
from gcl_core.networks.models import build_network
from gcl_core.networks.network import Network

log = logging.getLogger(__name__)

MODEL = "model.pt"
MODEL_VERSION = 1  # raised when older programs could not read the file
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

Picture = str | Path | Image.Image
Pictures = Picture | Iterable[Picture] | Tensor


@dataclass(frozen=True)
class Predictions:
    """Probabilities of the classes for N pictures.

    Attributes:
        probabilities: (N, C) float64 on the CPU.
        class_names: C names.
    """

    probabilities: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def classes(self) -> list[str]:
        """The most probable class of each picture."""
        return [self.class_names[j] for j in self.probabilities.argmax(1)]

    def top(self, number: int = 5) -> list[list[tuple[str, float]]]:
        """Of each picture, the most probable classes with their probabilities, the first first."""
        best = self.probabilities.sort(dim=1, descending=True, stable=True)
        rows = zip(best.values[:, :number].tolist(), best.indices[:, :number].tolist(), strict=True)
        return [[(self.class_names[j], p) for p, j in zip(*row, strict=True)] for row in rows]


@dataclass(frozen=True)
class SavedModel:
    """What a finished run learned, ready for new pictures.

    Pictures are files, PIL images, or a uint8 tensor (N, channels, H, W) of the run's `shape`. The
    first two are decoded as the run's own test images: turned by EXIF, transparency on white,
    resized until they fill the shape, and cut to its middle; grey for a network of one channel.

    Attributes:
        path: the run's folder.
        network: with the final weights, in evaluation mode; predictions are made on its device.
        class_names, class_counts: of C classes, and training images of each.
        shape: channels, height and width of its images.
        mean, std: (channels,) for normalisation, in units of the full pixel range.
        scale: factor of the outputs in the last training loss.
        source: the data set it was trained on, as `--dataset` takes it; a path is absolute.
        settings: all settings of the run, as plain nested values.
        calibration: fitted on the data set's validation images; None if there were none.
        result: what the run's result.json says.
    """

    path: Path
    network: Network
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    source: str
    settings: dict[str, Any]
    calibration: Calibration | None
    result: dict[str, Any]

    def features(self, images: Pictures) -> Tensor:
        """What the classifier sees of each picture, (N, D) float32 on the CPU.

        Raises:
            GCLError: a picture that cannot be read, or a tensor of another shape.
        """
        return self._through(self.network.features, images)

    def outputs(self, images: Pictures) -> Tensor:
        """The classifier's outputs (N, C), float32 on the CPU: cosines or logits, without scale.

        Raises:
            GCLError: as `features`.
        """
        return self._through(self.network, images)

    def predict(
        self, images: Pictures, prior: str | Mapping[str, float] | None = None
    ) -> Predictions:
        """Probabilities of the classes for pictures.

        The most probable class is that of the largest output z, as in the run's accuracies, unless
        a prior q is given. Calibrated: softmax(a z), or softmax(a z + b log pi + log(q / pi)), see
        `Calibration`; what the loss did for the tail is in z, so that softmax(a z) is right where
        classes occur in proportion to pi^(1 - b). Without validation images: softmax(scale * z),
        which ranks the classes but is no frequency.

        Args:
            prior: how often each class is expected among the pictures, q: "training", "uniform", or
                weights by class name; None: as the run's loss has it. Only a calibrated run takes
                one.

        Raises:
            GCLError: as `features`; or a prior that the run cannot have.
        """
        slope, offset = self.terms(prior)
        logits = slope * self.outputs(images).double() + offset
        return Predictions(logits.softmax(1), self.class_names)

    def terms(self, prior: str | Mapping[str, float] | None = None) -> tuple[float, Tensor]:
        """Factor of the outputs, and what is then added to them (C,), before the softmax.

        Raises:
            GCLError: a prior that the run cannot have.
        """
        if self.calibration is None and prior is not None:
            raise GCLError(
                f"{self.path} is not calibrated, so it takes no prior: its data set has no "
                "validation images; make some (split SOURCE OUT --validation 0.1) and train "
                "on OUT"
            )
        if prior is None:
            slope = self.scale if self.calibration is None else self.calibration.slope
            return slope, torch.zeros(len(self.class_names), dtype=torch.float64)
        assert self.calibration is not None
        training = shares(torch.tensor(self.class_counts))
        expected = offsets(self.calibration.tilt, training, self._prior(prior, training))
        return self.calibration.slope, expected

    def _prior(self, prior: str | Mapping[str, float], training: Tensor) -> Tensor:
        if prior == "training":
            return training
        if prior == "uniform":
            return shares(torch.ones_like(training))
        if isinstance(prior, str):
            raise GCLError(f"prior must be training, uniform or shares by class, got {prior!r}")
        for wrong, names in (
            ("does not know", prior.keys() - set(self.class_names)),
            ("needs", set(self.class_names) - prior.keys()),
        ):
            if names:
                raise GCLError(f"the prior has a share for each class; it {wrong} {min(names)!r}")
        given = [float(prior[name]) for name in self.class_names]
        weights = torch.tensor(given, dtype=torch.float64)
        if not bool((weights >= 0).all()) or not 0 < float(weights.sum()) < math.inf:
            raise GCLError("shares of a prior must be numbers >= 0, and not all zero")
        return shares(weights)

    def pixels(self, picture: Picture) -> Tensor:
        """A picture as the network takes it, before normalisation: uint8 (channels, H, W).

        Raises:
            GCLError: it cannot be read; or the run was not trained on pictures.
        """
        self.require_pictures()
        name = picture if isinstance(picture, Image.Image) else str(at_home(picture))
        channels, height, width = self.shape
        with pillow_warnings():
            share = self.settings["data"].get("test_crop", 1.0)
            array = decode(name, (width, height), share)
        if channels == 1:
            return torch.from_numpy(np.array(Image.fromarray(array).convert("L")))[None]
        return torch.from_numpy(array.transpose(2, 0, 1).copy())

    def require_pictures(self) -> None:
        """Raise a GCLError if the run was not trained on pictures."""
        if not self.has_pixels:
            raise GCLError(
                f"{self.path} was trained on features of {self.source}, not on pictures: pictures "
                "need a run on a folder with a network (train --dataset folder:PATH)"
            )

    @property
    def has_pixels(self) -> bool:
        """Whether it was trained on pictures; else on features that others computed of them."""
        return bool(self.mean)

    @torch.no_grad()
    def _through(self, module: Callable[[Tensor], Tensor], images: Pictures) -> Tensor:
        device = next(self.network.parameters()).device
        normalise = normaliser(self.mean, self.std, device)
        batches = self._batches(images, inference_batch(device, self.shape))
        return torch.cat([module(normalise(pixels.to(device))).cpu() for pixels in batches])

    def _batches(self, images: Pictures, together: int) -> Iterator[Tensor]:
        """At most so many images at a time; not all pictures are in memory at once."""
        if isinstance(images, Tensor):
            number = torch.uint8 if self.has_pixels else torch.float32
            if images.dtype != number or images.shape[1:] != self.shape or not len(images):
                size, got = ", ".join(map(str, self.shape)), tuple(images.shape)
                raise GCLError(
                    f"images must be {number} (N >= 1, {size}), got {images.dtype} {got}"
                )
            yield from images.split(together)
            return
        rest, seen = iter([images] if isinstance(images, Picture) else images), 0
        while some := list(islice(rest, together)):
            seen += len(some)
            yield torch.stack([self.pixels(picture) for picture in some])
        if not seen:
            raise GCLError("there is no picture; images are files, PIL images, or a uint8 tensor")


def save_model(
    folder: Path,
    settings: Settings,
    dataset: LongTailedDataset,
    network: Network,
    validation: Callable[[], tuple[Tensor, Tensor]],
) -> None:
    """Write what `load_run` reads into the folder of a run's last stage, unless it is there.

    A finished folder that can only be read stays as it is.

    Args:
        validation: gives outputs and labels of validation images, on which the probabilities are
            calibrated; it is asked only if there are any.

    Raises:
        OSError: there is no space.
    """
    file = folder / MODEL
    if file.exists():
        return
    last = settings.stage2 or settings.stage1
    # Outputs of a re-balancing that has a scale are multiplied by it already.
    scaled = hasattr(last.rebalance, "scale")
    scale = 1.0 if scaled else float(getattr(last.objective, "scale", 1.0))
    value = {
        "version": MODEL_VERSION,
        "weights": {name: weight.cpu() for name, weight in network.state_dict().items()},
        "class_names": dataset.class_names,
        "class_counts": dataset.class_counts,
        "shape": dataset.train.images.shape,
        "mean": dataset.mean,
        "std": dataset.std,
        "scale": scale,
        "source": absolute(settings.data.dataset),
        "settings": _with_absolute_root(to_dict(settings)),
        "calibration": None,
    }
    if dataset.validation is not None:
        fitted = fit_calibration(*validation(), torch.tensor(dataset.class_counts), scale)
        value["calibration"] = asdict(fitted)
    try:
        atomic_save(file, value)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        log.info("%s can only be read: %s, for predictions, is not written", folder, MODEL)


def _with_absolute_root(settings: dict[str, Any]) -> dict[str, Any]:
    data = settings["data"]
    if data.get("image_root"):
        root = str(at_home(data["image_root"]).resolve())
        settings["data"] = data | {"image_root": root}
    return settings


def load_run(path: str | Path) -> SavedModel:
    """A finished run, for predictions; its folder may come from another machine.

    Args:
        path: the folder of the run's last stage, which `train` names at its end.

    Raises:
        GCLError: no such run, one that is not finished, or one whose `model.pt` is missing,
            damaged, or of another version.
    """
    folder = at_home(path)
    if not (folder / "settings.json").exists():
        raise GCLError(f"{folder} is no run: name the folder that `train` names at its end")
    if not (folder / "result.json").exists():
        raise GCLError(f"{folder} is not finished; the same train command continues it")
    file = folder / MODEL
    if not file.exists():
        raise GCLError(
            f"{folder} has no {MODEL}: it is the first of two stages, or of an older version; the "
            "same train command as before writes it into the last stage's folder, and trains "
            "nothing again"
        )
    saved = load_tensors(file)
    if (version := str(saved.get("version"))) != str(MODEL_VERSION):
        raise GCLError(
            f"{file} is of version {version:.20}, this program reads {MODEL_VERSION}; "
            "move it away, and the same train command as before writes it anew"
        )
    try:
        calibration = saved["calibration"]
        return SavedModel(
            path=folder,
            network=_network(saved),
            calibration=None if calibration is None else Calibration(**calibration),
            result=load_json(folder / "result.json"),
            **_plain(saved),
        )
    except GCLError:
        raise
    except Exception as error:  # of almost any kind, for somebody else may have made the file
        raise GCLError(
            f"{file} is not one that this program wrote ({error}); move it away, and the same "
            "train command as before writes it anew"
        ) from error


def _plain(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says besides the weights, held to the types that `SavedModel` has."""
    shape = channels, *sides = tuple(map(index, saved["shape"]))
    numbers = {name: tuple(map(float, saved[name])) for name in ("mean", "std")}
    scale, settings = float(saved["scale"]), saved["settings"]
    if len(shape) != 3 or min(sides) < 1 or not isinstance(settings["data"], dict):
        raise ValueError(f"shape {shape}, settings of data {settings['data']!r:.40}")
    if any(len(own) not in (0, channels) for own in numbers.values()):
        raise ValueError(f"mean and std of {channels} channels: {numbers}")
    if not all(map(math.isfinite, (scale, *numbers["mean"], *numbers["std"]))):
        raise ValueError("numbers that are not finite")
    return numbers | {
        "class_names": tuple(map(shown, saved["class_names"])),
        "class_counts": tuple(map(index, saved["class_counts"])),
        "shape": shape,
        "scale": scale,
        "source": str(saved["source"]),
        "settings": settings,
    }


def images_of(model: SavedModel, source: str | None = None) -> LongTailedDataset:
    """The images that a run was trained and tested on.

    Args:
        model: of the run.
        source: where they are now, as `--dataset` takes it; None: where they were.

    Raises:
        GCLError: they are not there, or are unfit.
    """
    where = {"dataset": source or model.source}
    try:
        settings = DataSettings(**(model.settings["data"] | where))
    except TypeError as error:
        raise GCLError(f"{model.path} has settings that this version lacks: {error}") from error
    return load_dataset(settings)


def _network(saved: Mapping[str, Any]) -> Network:
    """The network of the last stage with its final weights, made without the training images."""
    settings, classes = saved["settings"], len(saved["class_names"])
    generator = torch.Generator()
    network = build_network(
        settings["network"], classes, settings["head"], saved["shape"][0], generator
    )
    if settings["stage2"] is not None:
        values = dict(settings["stage2"]["rebalance"])
        rebalance = REBALANCERS[values.pop("name")](**values)
        # What it makes of features is in the weights: here only their shapes count.
        backbone: Any = network.backbone
        features = torch.zeros(classes, backbone.out_features)
        counts, labels = torch.tensor(saved["class_counts"]), torch.arange(classes)
        inputs = RebalanceInputs(counts, lambda: [(features, labels)], generator)
        network = rebalance.network(network, inputs)
    network.load_state_dict(saved["weights"])
    return channels_last(network.requires_grad_(False).eval())
