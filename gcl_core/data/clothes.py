"""The embedded photographs of clothes: features for training, small pictures for the eye.

`embedded/README.md` says where they come from, what the features are, and what they lack.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.images import MemoryImages, Pictures
from gcl_core.data.imbalance import nested_subset
from gcl_core.errors import GCLError

if TYPE_CHECKING:
    from gcl_core.data.load import DataSettings

FILE = Path(__file__).parent / "embedded" / "clothes.npz"
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


def read_clothes(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """5,096 photographs of clothes (CC0) in 17 natural classes, as features of a pre-trained
    network; of each class 20 % are the test set and 10 % the validation set, by seed.
    """  # noqa: D205
    if path or wanted.image_size:
        raise GCLError("dataset 'clothes' is embedded: it takes no path and no image_size")
    stored = _stored("features", "labels", "class_names")
    features = torch.from_numpy(stored["features"].astype(np.float32))[:, :, None, None]
    labels = torch.from_numpy(stored["labels"].astype(np.int64))
    every = Split(MemoryImages(features, clothes_pictures()), labels)
    counts = torch.bincount(labels).tolist()
    generator = torch.Generator().manual_seed(wanted.data_seed)
    rest = torch.arange(len(labels))
    held: list[Tensor] = []
    for share in (TEST_SHARE, VALIDATION_SHARE):
        share_of_each = [max(1, round(share * n)) for n in counts]
        held.append(rest[nested_subset(labels[rest], share_of_each, generator)])
        rest = rest[~torch.isin(rest, held[-1])]
    train, test, validation = (every.subset(part) for part in (rest, *held))
    names = tuple(str(name) for name in stored["class_names"])
    nothing = PadCrop(0, False)
    return LongTailedDataset("clothes", names, train, test, (), (), nothing, validation)


def clothes_pictures() -> Pictures:
    """The photographs of `--dataset clothes` at 64 pixels, class by class in the order of files.

    Those of a part, in its order, are `part.images.picture(i)`.

    Raises:
        GCLError: the package's file of them is damaged.
    """
    stored = _stored("encoded", "offsets")
    return Pictures(stored["encoded"], stored["offsets"], np.arange(len(stored["offsets"]) - 1))


def _stored(*names: str) -> dict[str, np.ndarray]:
    try:
        with FILE.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # of almost any kind, for the bytes may be anything
        raise GCLError(f"{FILE} is damaged ({error}); install gcl-core again") from error
