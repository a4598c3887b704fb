"""What a data set is made of: settings that refuse what is out of range."""

from dataclasses import dataclass

from gcl_core.config import Config, value
from gcl_core.data.imbalance import PROFILES
from gcl_core.errors import GCLError


@dataclass(frozen=True)
class DataSettings(Config):
    """Which images, and how many of each class."""

    dataset: str = value("digits", "digits, cifar10, cifar100 (or cifar10:PATH), or folder:PATH")
    imbalance_ratio: float | None = value(
        100.0, "n_max / n_min; none: leave the data as they are", low=1
    )
    profile: str = value("exp", "shape of the tail; exp: the paper, Sec. 4.1", allowed=PROFILES)
    n_max: int | None = value(
        None,
        "images of the head class, with an imbalance_ratio; none: as many as every class has",
        low=1,
    )
    class_counts: tuple[int, ...] | None = value(
        None, "explicit counts, such as 50,20,5; instead of ratio and profile", low=1
    )
    data_seed: int = value(
        0, "seed of the subset (and of the split of digits)", low=0, high=2**32 - 1
    )
    image_size: int | None = value(
        None, "resize every image of a folder to this size", low=5, high=512
    )
    crop_padding: int | None = value(
        None,
        "pixels around the random crop; none: 4 of 32 (published code), 1 of 8",
        low=0,
        high=64,
    )
    flip: bool | None = value(None, "mirror at random; none: yes, but not digits")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_max is not None and (self.class_counts or self.imbalance_ratio is None):
            raise GCLError(
                "n_max goes with an imbalance_ratio: class_counts, and imbalance_ratio none, say "
                "how many images there are"
            )
