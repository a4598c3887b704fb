"""FocalLoss: cross-entropy that turns away from what is already right."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.losses.criterion import Criterion, check_number, lead


class FocalLoss(Criterion):
    """Focal loss (Lin et al. 2017) in its softmax form.

        loss = (1 - p_y)^gamma (-log p_y),   p = softmax(scale z)

    The factor is differentiated, as in Lin et al. 2017 and in LDAM-DRW's code; `GCLLoss` detaches
    its own. Precision, eval mode, reduction, shapes and refusals are those of `Criterion`.

    Args:
        gamma: >= 0; 0 is cross-entropy. Default 1: the scripts of LDAM-DRW and of
            class-balanced-loss (Cui et al. 2019).
        scale: > 0, for cosines. Default 1: outputs of a linear classifier.
    """

    def __init__(self, gamma: float = 1.0, scale: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction, scale)
        check_number("gamma", gamma)
        self.gamma = gamma

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) losses from how far the others are ahead of the target, d = log((1 - p_y) / p_y).

        1 - p_y = sigmoid(d) keeps its precision, and its power a finite gradient, when p_y rounds
        to 1.
        """
        ahead = lead(logits, target)
        factor = torch.exp(self.gamma * F.logsigmoid(ahead))
        return factor * -F.logsigmoid(-ahead)
