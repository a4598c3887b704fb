"""Batches for the tests of the losses, and the softmax of a loop."""

import math

import torch

from toys import seeded

COUNTS = [500, 120, 30, 5]
PRIOR = [n / sum(COUNTS) for n in COUNTS]


def logit_batch(samples=40, classes=4, seed=0, dtype=torch.float64):
    """Outputs of a linear classifier, from unsure to very sure, and targets."""
    generator = seeded(seed)
    outputs = 4 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return outputs.to(dtype), torch.randint(classes, (samples,), generator=generator)


def cosine_batch(samples=40, classes=4, seed=0, dtype=torch.float64):
    """Cosines, targets, and noise that also reaches beyond the clamp."""
    generator = seeded(seed)
    cosine = torch.rand(samples, classes, generator=generator, dtype=torch.float64) * 2 - 1
    target = torch.randint(classes, (samples,), generator=generator)
    noise = torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return cosine.to(dtype), target, noise.to(dtype)


def softmax(row):
    """Probabilities of one sample's logits, a list."""
    most = max(row)
    exponentials = [math.exp(z - most) for z in row]
    return [e / sum(exponentials) for e in exponentials]


def is_close(result, expected, tolerance=2e-6):
    """Assert that a float64 loss is that of a loop; what comes from the counts is a float32."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
