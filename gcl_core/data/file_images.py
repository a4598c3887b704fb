"""Images that stay in their files and are decoded when a batch needs them."""

import hashlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from gcl_core.bars import Bar
from gcl_core.data.augment import PadCrop, ResizedCrop
from gcl_core.data.image_files import read_rgb
from gcl_core.data.images import histogram_statistics
from gcl_core.data.workers import Decoder, Task, Threads
from gcl_core.errors import GCLError

log = logging.getLogger(__name__)
CPU = torch.device("cpu")
# Images that are decoded as one piece of work: several pieces of a batch are decoded at once, so
# that the first batch of an epoch is not waited for as long as one process needs for all of it.
TOGETHER = 64
SAMPLED = 16  # images that stand for all, where reading all would take hours


@dataclass
class Reading:
    """How image files are read: one for all parts of a data set, and for what is made of them.

    Attributes:
        allowed: so many files may turn out to be unreadable when they are needed.
        refused: those that did so far.
        decoder: who decodes.
    """

    allowed: int = 0
    refused: set[str] = field(default_factory=set)
    decoder: Decoder = field(default_factory=Threads)

    def refuse(self, file: str, problem: str) -> None:
        """Count a file once; the problem names it.

        Raises:
            GCLError: it is one too many.
        """
        if file in self.refused:
            return
        if not self.allowed:
            raise GCLError(f"{problem}; skip_unreadable N leaves out up to N such files")
        if len(self.refused) == self.allowed:
            raise GCLError(f"{problem}; skip_unreadable allows {self.allowed} such files")
        self.refused.add(file)
        message = "%s; the next image of its class stands in for it (%d of %d such files allowed)"
        log.warning(message, problem, len(self.refused), self.allowed)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files, each given as RGB of one size: its middle, or what `ResizedCrop` draws of it.

    What is drawn for an image is drawn before it is decoded, so that the pixels do not depend on
    who decodes them. For a file that cannot be read the next one of its class stands in, in the
    order of the files and from the last one to the first, with the same draws: which one that is
    depends on nothing but the files.

    Attributes:
        files: paths.
        size: width and height of what is given.
        device: where batches go.
        root: the folder that the paths are relative to. With it, images are told from others by
            these paths and by the content of a few: nobody reads all of a large data set first.
        labels: (N,) the classes within which an image may stand in for another.
        reading: who decodes, and how many files may be unreadable.
        share: of the shorter side that the middle has.
    """

    files: Sequence[str]
    size: tuple[int, int]
    device: torch.device = CPU
    root: str = ""
    labels: Tensor | None = None
    reading: Reading = field(default_factory=Reading)
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return 3, self.size[1], self.size[0]

    @property
    def pixels(self) -> Tensor:
        """All of them, decoded: (N, 3, H, W) uint8."""
        return torch.cat(list(self.batches(torch.arange(len(self)).split(TOGETHER))))

    def path(self, index: int) -> str:
        """Where an image is."""
        return os.path.join(self.root, self.files[index])

    def subset(self, indices: Tensor) -> "FileImages":
        """Some of the images, in the order of the indices."""
        chosen = torch.arange(len(self))[indices].tolist()
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, files=[self.files[i] for i in chosen], labels=labels)

    def picture(self, index: int) -> Image.Image:
        """An image as a person sees it, all of it.

        Raises:
            GCLError: the file cannot be read.
        """
        return read_rgb(self.path(index), self.size)

    def on(self, device: torch.device) -> "FileImages":
        """The same images, with batches on a device."""
        return replace(self, device=device)

    def batches(
        self,
        steps: Sequence[Tensor],
        augment: PadCrop | ResizedCrop | None = None,
        draws: Sequence[tuple[Tensor, ...]] = (),
    ) -> Iterator[Tensor]:
        """uint8 images (n, 3, H, W) of each step's indices, on the device; see `MemoryImages`.

        Raises:
            GCLError: a file cannot be read, and none may stand in for it; it is named.
        """
        assert augment is None or isinstance(augment, ResizedCrop)  # `load_dataset` sees to it
        if not steps:
            return
        # Once for all steps: each copy from a GPU would wait for what it has to do.
        sizes = [[len(piece) for piece in step.split(TOGETHER)] for step in steps]
        every = [size for own in sizes for size in own]
        pieces = torch.cat(list(steps)).cpu().split(every)
        drawn = [torch.cat(each) for each in zip(*draws, strict=True)]
        cuts = torch.stack(drawn, 1).cpu().split(every) if augment else ()

        def task(piece: int) -> Task:
            files = [self.path(index) for index in pieces[piece].tolist()]
            own = cuts[piece].tolist() if augment else []
            return Task(files, self.size, augment, own, self.share)

        decoded = enumerate(self.reading.decoder.map(task(piece) for piece in range(len(pieces))))
        for own in sizes:
            batch = []
            for piece, (pixels, problems) in itertools.islice(decoded, len(own)):
                for number, problem in problems.items():
                    index = int(pieces[piece][number])
                    pixels[number] = self._stand_in(index, problem, task(piece), number)
                batch.append(pixels.permute(0, 3, 1, 2).to(self.device, non_blocking=True))
            yield torch.cat(batch)
        next(decoded, None)  # its end, at which processes are free for the next pass

    def _stand_in(self, index: int, problem: str, task: Task, number: int) -> Tensor:
        """Pixels of the next readable image of the class, cut as that one would have been."""
        self.reading.refuse(self.files[index], problem)
        assert self.labels is not None  # where files may be refused
        same = (self.labels == self.labels[index]).nonzero().flatten()
        for other in torch.cat((same[same > index], same[same < index])).tolist():
            own = replace(task, files=[self.path(other)], draws=task.draws[number : number + 1])
            pixels, problems = own.batch([own.image(0)])
            if not problems:
                return pixels[0]
            self.reading.refuse(self.files[other], problems[0])
        raise GCLError(f"{problem}; no other image of its class can stand in for it")

    @property
    def sampled(self) -> list[int]:
        """Indices of a few images, evenly from the first to the last."""
        number = min(SAMPLED, len(self))
        return torch.linspace(0, len(self) - 1, number).round().long().tolist()

    def decoded_bytes(self) -> int:
        """About as many bytes as all images take, decoded: of a few, times their number."""
        sizes = []
        for index in self.sampled:
            with suppress(GCLError):
                image = self.picture(index)
                sizes.append(4 * image.width * image.height)  # as Pillow keeps RGB
        return sum(sizes) * len(self) // max(1, len(sizes))

    def joined(self, others: "Sequence[FileImages]") -> "FileImages":
        """These images and then those of others of the same size."""
        every = (self, *others)
        files = [each.path(index) for each in every for index in range(len(each))]
        known = [each.labels for each in every if each.labels is not None]
        return replace(self, files=files, root="", labels=torch.cat(known) if known else None)

    @cached_property
    def contents(self) -> list[bytes]:
        """What tells each image from others of its size: a hash of its file and share.

        With a root: of what `hash_into` takes, and of its path.
        """
        if not self.root:
            return [hashlib.sha256(own + b"%r" % self.share).digest() for own in self._hashes]
        digest = hashlib.sha256()
        self.hash_into(digest)
        return [hashlib.sha256(digest.digest() + own.encode()).digest() for own in self.files]

    @cached_property
    def _hashes(self) -> list[bytes]:
        files = [self.path(index) for index in (self.sampled if self.root else range(len(self)))]
        with ThreadPoolExecutor() as pool:
            return list(Bar("hashing", len(files), "file").over(pool.map(_content, files)))

    def hash_into(self, digest: "hashlib._Hash") -> None:
        """Give a hash what tells these images from others: size, and content of every file.

        With a root: size, every path, and the content of a few files.
        """
        shown = (*self.size, self.share) if self.share < 1 else self.size
        digest.update(str(shown).encode())
        if self.root:
            digest.update("\n".join(self.files).encode())
        for own in self._hashes:
            digest.update(own)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, in units of the full pixel range."""
        steps = torch.arange(len(self)).split(TOGETHER)
        batches = self.batches(steps)
        return histogram_statistics(Bar("mean and deviation", len(steps), "part").over(batches))


def _content(file: str) -> bytes:
    if not os.path.isfile(file):  # one of a list: named and counted when it is needed
        return b""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
