"""The training loop that one would otherwise write: PIL images one at a time, eager float32.

It is here to be compared with: `bench` measures how much slower it is, `compare` shows that the
accuracy is the same.
"""

from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.load import load_dataset
from gcl_core.methods.settings import Settings, learning_rate
from gcl_core.networks.models import build_network


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Training images as PIL images through torchvision's transforms, one at a time."""

    def __init__(self, dataset: LongTailedDataset) -> None:
        arrays = dataset.train.images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.images = arrays[..., 0] if arrays.shape[3] == 1 else arrays
        self.labels = dataset.train.labels.tolist()
        assert isinstance(dataset.augment, PadCrop)
        steps = [transforms.RandomCrop(arrays.shape[1:3], padding=dataset.augment.padding)]
        if dataset.augment.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def plain_loader(
    dataset: LongTailedDataset, batch_size: int, sampler: Sampler[int] | None = None
) -> DataLoader[Any]:
    """Shuffled batches, or those of a sampler."""
    images = PlainImages(dataset)
    return DataLoader(images, batch_size=batch_size, shuffle=sampler is None, sampler=sampler)


def plain_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any], device: Any
) -> None:
    """One epoch of cross-entropy."""
    network.train()
    for inputs, target in loader:
        inputs, target = inputs.to(device), target.to(device)
        loss = F.cross_entropy(network(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain_accuracy(settings: Settings) -> float:
    """Last-epoch test top-1, in percent, of stage 1 with cross-entropy in the plain loop.

    Draws come from torch's global generator, as in such loops; its state is put back afterwards.
    """
    dataset, stage = load_dataset(settings.data), settings.stage1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        channels = dataset.train.images.shape[0]
        network = build_network(settings.network, dataset.num_classes, settings.head, channels)
        optimizer = torch.optim.SGD(
            network.parameters(),
            stage.lr,
            momentum=stage.momentum,
            weight_decay=stage.weight_decay,
        )
        loader = plain_loader(dataset, stage.batch_size)
        for epoch in range(stage.epochs):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, epoch)
            plain_epoch(network, optimizer, loader, torch.device("cpu"))
    network.eval()
    normalise = transforms.Normalize(dataset.mean, dataset.std)
    with torch.no_grad():
        right = sum(
            int((network(normalise(images / 255)).argmax(1) == labels).sum())
            for images, labels in zip(
                dataset.test.images.pixels.split(500), dataset.test.labels.split(500), strict=True
            )
        )
    return 100 * right / len(dataset.test.labels)


def same_accuracy(fast: list[float], plain: list[float]) -> dict[str, Any]:
    """Top-1 of both over seeds, the difference of the means, half of its 95 % t interval (Welch).

    `within` says whether the interval holds zero.
    """
    difference = mean(fast) - mean(plain)
    low, high = stats.ttest_ind(fast, plain, equal_var=False).confidence_interval(0.95)
    return {
        "fast": [round(value, 2) for value in fast],
        "plain": [round(value, 2) for value in plain],
        "difference": round(difference, 2),
        "half_interval": round(float(high - low) / 2, 2),
        "within": bool(low <= 0 <= high),
    }
