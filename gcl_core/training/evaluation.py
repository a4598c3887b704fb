"""Accuracy from clean outputs: top-1, by class and by group, and who is taken for whom."""

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import clean_batches
from gcl_core.errors import GCLError
from gcl_core.hardware import channels_last
from gcl_core.networks.pretrained import TimmBackbone

Inference = Callable[[Tensor], Tensor]
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
MOST_CONFUSED = 200  # classes; 8,142 of them would make 66 million cells


def frozen(module: nn.Module, fabric: Fabric) -> Inference:
    """A copy of a module for inference; later changes to the module do not reach it.

    Batch normalisation is folded into the convolutions; no gradients; the run's precision.
    """
    copied = channels_last(_folded(copy.deepcopy(module).eval().requires_grad_(False)))

    def infer(inputs: Tensor) -> Tensor:
        with torch.no_grad(), fabric.autocast():
            return copied(inputs).float()

    return infer


def _folded(module: nn.Module) -> nn.Module:
    """The module with each batch normalisation folded into the convolution defined before it.

    torch.fx finds such pairs in any network, and takes three times as long as a small one's test
    images; here they stand side by side (`backbones`). In timm's networks they need not.
    """
    theirs = [part for part in module.modules() if isinstance(part, TimmBackbone)]
    inside = {id(part) for each in theirs for part in each.modules()}
    for parent in [part for part in module.modules() if id(part) not in inside]:
        for (name, conv), (other, norm) in itertools.pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, NORMS):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, other, nn.Identity())
    return module


def outputs_of(
    infer: Inference,
    split: Split,
    dataset: LongTailedDataset,
    device: torch.device,
    *,
    progress: str = "auto",
) -> Tensor:
    """`infer` of every image of a part of the data set, in order: (N, ...) on the device.

    Args:
        progress: the kind of its `Bar`.
    """
    batches = clean_batches(split, dataset, device, title="outputs", progress=progress)
    return torch.cat([infer(images) for images, _ in batches])


class Tally:
    """Right and wrong predictions by class, counted batch by batch on the device of the outputs.

    The prediction is the arg max of outputs (N, C): for a cosine classifier the clean cosines,
    without cloud, margin or scale; ties go to the first class.

    Args:
        num_classes: C. Up to 200 the whole confusion matrix is kept: (C, C) images by true (row)
            and predicted (column) class. Above, where it would have too many cells, (C, 2) images
            that are wrong and right.
    """

    def __init__(self, num_classes: int, device: torch.device | None = None) -> None:
        self.whole = num_classes <= MOST_CONFUSED
        columns = num_classes if self.whole else 2
        self.cells = torch.zeros(num_classes, columns, dtype=torch.int64, device=device)

    def add(self, outputs: Tensor, labels: Tensor) -> "Tally":
        """Count some images more; outputs (N, C), labels (N,). Returns the tally."""
        labels, guesses = labels.to(outputs.device), outputs.argmax(1)
        columns = guesses if self.whole else (guesses == labels).long()
        cells = labels * self.cells.shape[1] + columns
        self.cells.view(-1).index_add_(0, cells, torch.ones_like(cells))
        return self

    @property
    def confusion(self) -> Tensor | None:
        """The confusion matrix (C, C) int64 on the CPU; None with too many classes."""
        return self.cells.cpu() if self.whole else None

    def accuracies(self, groups: Mapping[str, list[int]]) -> dict[str, Any]:
        """Top-1 of all, of each group and of each class, in percent, and the confusion matrix.

        A group's accuracy counts its test images alike (on a balanced test set: the mean of its
        classes). A group or class without test images has no accuracy: None.
        """
        cells = self.cells.cpu()
        right = (cells.diagonal() if self.whole else cells[:, 1]).double()
        total = cells.sum(1).double()

        def percent(classes: list[int]) -> float | None:
            images = float(total[classes].sum())
            return round(100 * float(right[classes].sum()) / images, 4) if images else None

        every = list(range(len(total)))
        result: dict[str, Any] = {"top1": percent(every)}
        result.update({group: percent(classes) for group, classes in groups.items()})
        result["per_class"] = [percent([j]) for j in every]
        return result | ({"confusion": cells.tolist()} if self.whole else {})


def weighted_accuracy(
    per_class: Sequence[float] | Tensor, weights: Sequence[float] | Tensor
) -> float:
    """Accuracy of test images of which class j makes up the share w_j / sum_i w_i.

    sum_j w_j a_j / sum_j w_j,  a_j the accuracy of class j

    Raises:
        GCLError: weights that are negative or all zero, or not one for each class.
    """
    accuracy = torch.as_tensor(per_class, dtype=torch.float64)
    share = torch.as_tensor(weights, dtype=torch.float64)
    if accuracy.shape != share.shape:
        raise GCLError(f"{accuracy.numel()} accuracies need as many weights, got {share.numel()}")
    if bool((share < 0).any()) or not bool(share.sum() > 0):
        raise GCLError("weights must be >= 0 and not all zero")
    return float((share * accuracy).sum() / share.sum())


def f1_score(right: float, tested: float, taken: float) -> float | None:
    """2 right / (tested + taken) of one class: harmonic mean of precision and recall, in [0, 1].

    Args:
        right: test images of the class that were taken for it.
        tested: its test images; without any it has no F1: None.
        taken: test images, of any class, that were taken for it.
    """
    return 2 * right / (tested + taken) if tested else None


def macro_f1(classes: Iterable[tuple[float, float, float]]) -> float:
    """Mean F1 of the classes that have test images, of which there is one at least.

    Args:
        classes: what `f1_score` takes, of each class.
    """
    scores = [score for counts in classes if (score := f1_score(*counts)) is not None]
    return sum(scores) / len(scores)
