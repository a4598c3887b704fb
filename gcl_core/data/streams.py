"""The random streams of a stage: what is drawn for one purpose does not move another."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Streams:
    """The random streams of one stage; their states go into its checkpoint.

    `weights` draws new weights, `order` the images of an epoch, `mixup` the shares (all on the
    CPU), `device` what happens on the training device (augmentation, mixup partners), and `noise`
    feeds the objective.
    """

    weights: torch.Generator
    order: torch.Generator
    mixup: torch.Generator
    device: torch.Generator
    noise: torch.Generator

    @classmethod
    def seeded(cls, seed: int, stage: int, rank: int, device: torch.device) -> "Streams":
        """Independent streams; all processes (ranks) share weights, order and mixup shares."""

        def stream(number: int, on: torch.device, rank: int) -> torch.Generator:
            # Hashed, as torch's CPU generator looks at the lower 32 bits of a seed only.
            key = np.random.SeedSequence((seed, stage, rank, number)).generate_state(1, np.uint64)
            return torch.Generator(on).manual_seed(int(key[0]))

        cpu = torch.device("cpu")
        return cls(
            weights=stream(0, cpu, 0),
            order=stream(1, cpu, 0),
            mixup=stream(2, cpu, 0),
            device=stream(3, device, rank),
            noise=stream(4, device, rank),
        )

    def state(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name).get_state() for f in dataclasses.fields(self)}

    def restore(self, state: dict[str, Tensor]) -> None:
        for field in dataclasses.fields(self):
            getattr(self, field.name).set_state(state[field.name])
