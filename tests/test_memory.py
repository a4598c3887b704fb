"""Memory of a run: it grows neither with the squared number of classes nor with the test images."""

import resource

import torch

from gcl_core.data.augment import ResizedCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.methods.registry import resolve
from gcl_core.training import two_stages
from processes import in_each

CLASSES = 2 * 8142  # iNaturalist's, doubled: the square outweighs what differs between machines


class MadeImages:
    """Images that are made when they are asked for, each of one colour, by its number."""

    def __init__(self, numbers, size):
        self.numbers, self.shape = numbers, (3, size, size)

    def __len__(self):
        return len(self.numbers)

    def on(self, device):
        return self

    def subset(self, indices):
        return MadeImages(self.numbers[indices], self.shape[1])

    def batches(self, steps, augment=None, draws=()):
        for indices in steps:
            colours = (self.numbers[indices] % 251).to(torch.uint8)
            yield colours.view(-1, 1, 1, 1).expand(-1, *self.shape)

    def hash_into(self, digest):
        digest.update(f"{len(self)} {self.shape}".encode())


def made(images, size):
    """A split of so many images, of every class in turn."""
    return Split(MadeImages(torch.arange(images), size), torch.arange(images) % CLASSES)


def train_and_test(runs, training, tests, size, limit):
    """A run of `CLASSES` classes; its process must not take `limit` MB more than it had."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = made(training, size), made(tests, size)
    names, ends = tuple(map(str, range(CLASSES))), ((0.5,) * 3, (0.25,) * 3)
    crop = ResizedCrop((0.08, 1.0), True)
    data = LongTailedDataset("made", names, *parts, *ends, crop, made(tests, size))
    changes = {"network": "digits_cnn", "precision": "float32", "batch_size": 256, "epochs": 1}
    settings = resolve("digits", "ce_ncm", "smoke", **changes)
    two_stages.run(settings, runs, dataset=data, progress="none")
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert taken < limit, f"{taken:.0f} MB"


def test_neither_squared_classes_nor_test_images_are_in_memory(tmp_path):
    """395 to 435 MB are taken; the square in float32, as all images' outputs, is 1,060 more."""
    in_each(1, train_and_test, tmp_path, CLASSES, CLASSES, 8, 800)
