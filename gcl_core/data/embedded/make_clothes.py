"""Makes clothes.npz: python make_clothes.py FOLDER WEIGHTS OUT, a quarter of an hour on two cores.

FOLDER holds CLASS/ID.jpg; WEIGHTS are those of efficientnet-lite0 as `README.md` beside this file
names them; needs timm (extra `photos`).
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gcl_core.data.image_files import list_images

SEEN, SHOWN = 224, 64  # pixels of the shorter side, by the network and by people
DIMENSIONS = 256
QUALITY = 70
BATCH = 16


def opened(file: str) -> Image.Image:
    """An RGB picture, turned as viewers show it."""
    return ImageOps.exif_transpose(Image.open(file)).convert("RGB")


def network(weights: str) -> torch.nn.Module:
    """efficientnet-lite0 without its classifier; the file has other names for the same weights."""
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    given = torch.load(weights, weights_only=True)
    body = [weight for name, weight in given.items() if not name.startswith("_fc.")]
    net.load_state_dict(dict(zip(net.state_dict(), body, strict=True)))
    return net.eval()


@torch.no_grad()
def features(files: Sequence[str], weights: str) -> Tensor:
    """(N, 1280): shorter side to 224, the middle, pixels in [-1, 1]."""
    net, found = network(weights), []
    for start in range(0, len(files), BATCH):
        fits = [
            ImageOps.fit(opened(file), (SEEN, SEEN), Image.Resampling.BILINEAR)
            for file in files[start : start + BATCH]
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(fit) for fit in fits])).permute(0, 3, 1, 2)
        found.append(net(pixels.float() / 127.5 - 1))
    return torch.cat(found)


def projected(whole: Tensor) -> np.ndarray:
    """(N, `DIMENSIONS`) float16: the first principal components, a mean variance of 1."""
    centred = whole.double() - whole.double().mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:DIMENSIONS]
    # The sign of a direction is arbitrary: its largest entry shall be positive.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    components = centred @ (directions * largest.sign()).T
    return (components / components.pow(2).mean().sqrt()).half().numpy()


def jpeg(file: str) -> bytes:
    """The picture with its shorter side at 64 pixels."""
    picture, data = opened(file), io.BytesIO()
    scale = SHOWN / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    small.save(data, "JPEG", quality=QUALITY, optimize=True)
    return data.getvalue()


def make(folder: Path, whole: Tensor, out: Path) -> None:
    """Write the file from the folder and the features (N, 1280) of its images, in their order."""
    files, class_names = list_images(folder)
    pictures = [jpeg(file) for file, _ in files]
    np.savez(
        out,
        features=projected(whole),
        labels=np.array([label for _, label in files], dtype=np.uint8),
        class_names=np.array(class_names),
        ids=np.array([Path(file).stem for file, _ in files], dtype="S"),
        encoded=np.frombuffer(b"".join(pictures), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, pictures)]).astype(np.uint32),
    )


if __name__ == "__main__":
    folder, weights, out = sys.argv[1:]
    names = [file for file, _ in list_images(Path(folder))[0]]
    make(Path(folder), features(names, weights), Path(out))
