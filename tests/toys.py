"""Small data that the tests make."""

import numpy as np
import torch
from PIL import Image

from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.images import MemoryImages
from gcl_core.data.lists import PUBLISHED
from gcl_core.data.load import DataSettings
from gcl_core.data.sources import kind_of


def seeded(seed=0):
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def toy_dataset(counts=(30, 12, 5), size=8, channels=3, tests=4, padding=2, flip=True):
    """A data set of random images: `counts` for training and `tests` of each class for testing."""
    generator = seeded(1)

    def images(labels):
        shape = (len(labels), channels, size, size)
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)

    train = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    test = torch.arange(len(counts)).repeat_interleave(tests)
    return LongTailedDataset(
        name="toy",
        class_names=tuple(f"class {j}" for j in range(len(counts))),
        train=Split(MemoryImages(images(train)), train),
        test=Split(MemoryImages(images(test)), test),
        mean=tuple(0.4 + 0.05 * c for c in range(channels)),
        std=tuple(0.2 + 0.05 * c for c in range(channels)),
        augment=PadCrop(padding, flip),
    )


def toy_features(counts=(30, 12, 5), width=8, tests=4):
    """A data set of features: noise around one corner for each class."""
    corners, noise = torch.eye(width)[: len(counts)] * 4, seeded(2)

    def part(numbers):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(numbers))
        features = corners[labels] + torch.randn(len(labels), width, generator=noise)
        return Split(MemoryImages(features[:, :, None, None]), labels)

    names = tuple(f"class {j}" for j in range(len(counts)))
    train, test = part(list(counts)), part([tests] * len(counts))
    return LongTailedDataset("toy features", names, train, test, (), (), PadCrop(0, False))


def image_folder(root, classes=("ant", "bee", "cow"), train=6, test=3, size=(8, 8), suffix=".png"):
    """`root/train/CLASS/0.png ...` and `root/test/CLASS/...` of random colour images."""
    random = np.random.default_rng(0)
    for split, number in (("train", train), ("test", test)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}{suffix}")
    return root


def load_source(dataset, *, data_seed=0, image_size=None):
    """All images of a data set, before it is made long-tailed."""
    kind, path = kind_of(dataset)
    return kind.read(path, DataSettings(data_seed=data_seed, image_size=image_size))


def listed_images(root, counts=(6, 3, 2), test=2, val=0, size=(12, 9), kind="imagenet_lt"):
    """Random images in ImageNet-LT's layout, in a kind's list files: `counts` for training."""
    random = np.random.default_rng(0)

    def image(path):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / path)

    wnids = [f"n{1440764 + j:08d}" for j in range(len(counts))]
    parts = {"train": counts, "test": [test] * len(counts), "val": [val] * len(counts)}
    parts = {part: parts[part] for part in PUBLISHED[kind].lists}
    number = 0
    for part, numbers in parts.items():
        lines = []
        for label, (wnid, own) in enumerate(zip(wnids, numbers, strict=True)):
            for _ in range(own):
                number += 1
                file = f"ILSVRC2012_val_{number:08d}" if part == "test" else f"{wnid}_{number}"
                folder = "val" if part == "test" else "train"
                lines.append(f"{folder}/{wnid}/{file}.JPEG {label}\n")
                image(lines[-1].split()[0])
        if lines:
            (root / PUBLISHED[kind].lists[part][0]).write_text("".join(lines))
    return root
