"""What two folders of runs must have in common to be the same, bit by bit."""

import torch

from gcl_core.files import load_tensors


def tree(runs):
    """Every file that must be the same, by its place."""
    names = ("metrics.csv", "result.json", "settings.json")
    return {p.relative_to(runs): p.read_bytes() for p in runs.rglob("*") if p.name in names}


def checkpoints(runs):
    """The checkpoint of each folder, by its name."""
    return {p.parent.name: load_tensors(p) for p in runs.rglob("checkpoint.pt")}


def equal(ours, theirs):
    """Whether two nested values have the same bits."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    return ours == theirs
