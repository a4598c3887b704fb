"""A finished run in the formats of others: ONNX, TorchScript, or its bare weights."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcl_core.data.epoch import normaliser
from gcl_core.data.image_files import cache_folder
from gcl_core.errors import GCLError
from gcl_core.files import at_home, atomic_write, prepare
from gcl_core.inference.saved import SavedModel, images_of

CHECKED = 64  # images that an exported file is checked on
TOLERANCE = 1e-3  # of the largest output; what float32 in another order makes is below 1e-5
INPUTS, OUTPUTS = ("images",), ("outputs", "probabilities")


class Deployed(nn.Module):
    """Pictures of the run's shape to outputs and probabilities, normalisation included.

    Shape:
        images: (N, channels, H, W) uint8; returns the classifier's outputs (N, C) and, without a
        prior, `SavedModel.predict`'s probabilities (N, C), both float32.
    """

    offset: Tensor

    def __init__(self, model: SavedModel) -> None:
        super().__init__()
        self.network = model.network
        self.slope, offset = model.terms()
        self.register_buffer("offset", offset.float())
        self.normalise = normaliser(model.mean, model.std, self.offset.device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(self.normalise(images))
        return outputs, (self.slope * outputs + self.offset).softmax(1)


def export_run(model: SavedModel, kind: str, out: Path | None = None) -> str:
    """Write a run as `kind` (a key of `KINDS`), after its outputs were found to be the run's own.

    Args:
        out: the file; None: model.onnx, model.torchscript.pt or state_dict.pt in the run's folder.

    Returns:
        What was written, on which images it was checked, and the largest difference.

    Raises:
        GCLError: the network cannot be written so, or gives other outputs then.
        ModuleNotFoundError: a package of the extra `export` is missing.
        OSError: the file cannot be written.
    """
    name, write = KINDS[kind]
    out = model.path / name if out is None else at_home(out)
    if not out.parent.is_dir():
        raise GCLError(f"no such folder: {out.parent}")
    prepare(out)
    images, what = check_images(model)
    parts = images[:1], images[1:]  # one image alone, too: the number of images is free
    with _quiet():
        try:
            content, infer = write(model, images)
            found = torch.cat([infer(part) for part in parts])
        except ModuleNotFoundError:
            raise
        except Exception as error:  # of PyTorch and ONNX, of almost any kind
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
            raise GCLError(f"this network cannot be written as {kind}: {reason}") from error
    expected = torch.cat([model.outputs(part) for part in parts])
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise GCLError(
            f"as {kind} the outputs on {what} differ by {difference:.1e}: nothing is written; "
            "take another format"
        )
    atomic_write(out, content)
    return (
        f"{out}: {kind}, {len(content) / 2**20:.1f} MB; largest difference from the run's own "
        f"outputs on {what}: {difference:.1e}"
    )


def check_images(model: SavedModel) -> tuple[Tensor, str]:
    """Some of the data set's own test images if they can be read here, else made ones; which."""
    kind, _, path = model.source.partition(":")
    at_hand = path or not kind.startswith("cifar") or (cache_folder() / "torchvision").is_dir()
    if at_hand:  # else they would be fetched
        try:
            test = images_of(model).test
            chosen = torch.arange(0, len(test), max(1, len(test) // CHECKED))[:CHECKED]
            images = test.subset(chosen).images.pixels
            if images.shape[1:] == model.shape:
                return images, f"{len(images)} test images of {model.source}"
        except (GCLError, OSError, TypeError):
            pass
    shape, generator = (CHECKED, *model.shape), torch.Generator().manual_seed(0)
    made = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    what = f"{CHECKED} made images, as those of {model.source} are not here"
    return made if model.has_pixels else made / 255, what


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and logs of exporters, which nobody here can do anything about."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


Written = tuple[bytes, Callable[[Tensor], Tensor]]


def _about(model: SavedModel) -> dict[str, str]:
    """What a reader of the file has to know, as text by name."""
    channels, height, width = model.shape
    pictures = f"uint8 {'RGB' if channels == 3 else 'grey'}, {width}x{height}: resized until it "
    pictures += "fills that size, its middle taken; normalisation is inside"
    return {
        "class_names": json.dumps(model.class_names),
        "class_counts": json.dumps(model.class_counts),
        "images": pictures if model.has_pixels else f"float32 features ({channels}, 1, 1)",
        "mean": json.dumps(model.mean),
        "std": json.dumps(model.std),
        "probabilities": "calibrated" if model.calibration else "not calibrated",
        "run": model.path.resolve().name,
    }


def _onnx(model: SavedModel, images: Tensor) -> Written:
    import onnx
    import onnxruntime
    from onnxscript import opset18

    op: Any = opset18

    onnxruntime.set_default_logger_severity(3)

    def distances(first: Any, second: Any, p: float, mode: int | None = None) -> Any:
        """Of `torch.cdist` with p = 2, which ONNX has no operator for."""
        apart = op.Sub(
            op.Unsqueeze(first, op.Constant(value_ints=[-2])),
            op.Unsqueeze(second, op.Constant(value_ints=[-3])),
        )
        return op.ReduceL2(apart, op.Constant(value_ints=[-1]), keepdims=0)

    program = torch.onnx.export(
        Deployed(model).eval(),
        (images[:2],),
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        custom_translation_table={torch.ops.aten._cdist_forward.default: distances},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, _about(model))
    onnx.checker.check_model(proto)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda some: torch.from_numpy(
        session.run(["outputs"], {"images": some.numpy()})[0]
    )


def _torchscript(model: SavedModel, images: Tensor) -> Written:
    traced = torch.jit.trace(Deployed(model).eval(), images[:2], check_trace=False)
    content = traced.save_to_buffer(_extra_files=_about(model))
    loaded = torch.jit.load(io.BytesIO(content))
    return content, lambda some: loaded(some)[0]


def _state_dict(model: SavedModel, images: Tensor) -> Written:
    buffer = io.BytesIO()
    torch.save(dict(model.network.state_dict()), buffer)
    content = buffer.getvalue()
    network = copy.deepcopy(model.network)
    network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    return content, replace(model, network=network).outputs


KINDS = {
    "onnx": ("model.onnx", _onnx),
    "torchscript": ("model.torchscript.pt", _torchscript),
    "state_dict": ("state_dict.pt", _state_dict),
}
