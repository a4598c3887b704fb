"""Batches against an image-by-image loop; mixup; streams; nothing asked of the device."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as transforms

from gcl_core.data import epoch
from gcl_core.data.batch import Batch, Paired
from gcl_core.data.epoch import FrozenFeatures, TrainingImages, clean_batches
from gcl_core.data.images import MemoryImages
from gcl_core.data.samplers import ClassBalancedSampler, InstanceBalancedSampler
from gcl_core.data.streams import Streams
from toys import toy_dataset

CPU = torch.device("cpu")


def images_of(dataset, *, seed=0, batch_size=16, sampler=InstanceBalancedSampler, **options):
    streams = Streams.seeded(seed, 1, options.get("rank", 0), CPU)
    order = sampler(dataset.train.labels, generator=streams.order)
    return TrainingImages(dataset, order, batch_size, streams, CPU, **options)


def epoch_of(dataset, **options):
    return list(images_of(dataset, **options))


def loop(dataset, *, seed=0, batch_size=16, mixup_alpha=0.0):
    """The same epoch image by image with torchvision's operations, from the same draws."""
    streams = Streams.seeded(seed, 1, 0, CPU)
    order = InstanceBalancedSampler(dataset.train.labels, generator=streams.order).draw()
    steps = math.ceil(len(order) / batch_size)
    shares = torch.rand(steps, dtype=torch.float64, generator=streams.mixup)
    if mixup_alpha not in (0.0, 1.0):
        shares = torch.from_numpy(stats.beta.ppf(shares, mixup_alpha, mixup_alpha))
    size, pad = dataset.train.images.pixels.shape[2], dataset.augment.padding
    down, right = (
        torch.randint(2 * pad + 1, order.shape, generator=streams.device) for _ in range(2)
    )
    mirrored = torch.rand(order.shape, generator=streams.device) < 0.5
    images = []
    for i, index in enumerate(order.tolist()):
        image = transforms.pad(dataset.train.images.pixels[index], [pad])
        image = transforms.crop(image, int(down[i]), int(right[i]), size, size)
        if dataset.augment.flip and mirrored[i]:
            image = transforms.horizontal_flip(image)
        image = transforms.to_dtype(image, torch.float32, scale=True)
        images.append(transforms.normalize(image, dataset.mean, dataset.std))
    images, labels = torch.stack(images), dataset.train.labels[order]
    for share, inputs, target in zip(
        shares.tolist(), images.split(batch_size), labels.split(batch_size), strict=True
    ):
        if not mixup_alpha:
            yield inputs, target, None, None
            continue
        partner = torch.randperm(len(target), generator=streams.device)
        mixed = [
            share * inputs[i] + (1 - share) * inputs[j] for i, j in enumerate(partner.tolist())
        ]
        yield torch.stack(mixed), target, target[partner], share


@pytest.mark.parametrize("mixup_alpha", [0.0, 1.0, 0.2])
@pytest.mark.parametrize(
    ("padding", "flip", "channels"), [(2, True, 3), (1, False, 1), (0, True, 3)]
)
def test_an_epoch_against_a_loop_over_images(mixup_alpha, padding, flip, channels):
    dataset = toy_dataset(padding=padding, flip=flip, channels=channels)
    batches = epoch_of(dataset, mixup_alpha=mixup_alpha)
    expected = list(loop(dataset, mixup_alpha=mixup_alpha))
    assert len(batches) == len(expected) == 3
    for batch, (inputs, target, partner, share) in zip(batches, expected, strict=True):
        assert batch.inputs.dtype == torch.float32
        torch.testing.assert_close(batch.inputs, inputs, rtol=0, atol=1e-5)
        assert torch.equal(batch.target, target)
        if mixup_alpha:
            assert torch.equal(batch.partner, partner)
            assert float(batch.share) == pytest.approx(share, abs=1e-6)
        else:
            assert batch.partner is batch.share is None


def test_an_epoch_has_every_image_once_and_the_next_is_another():
    dataset = toy_dataset(padding=0, flip=False)
    images = images_of(dataset)
    epochs = [torch.cat([b.inputs for b in images]) for _ in range(2)]
    ((whole, _),) = clean_batches(dataset.train, dataset, CPU)
    for inputs in epochs:
        assert sorted(inputs.flatten(1).tolist()) == sorted(whole.flatten(1).tolist())
    assert not torch.equal(*epochs)


def test_every_crop_and_mirror_is_equally_likely():
    dataset = toy_dataset(counts=(2000,), size=2, channels=1, padding=1)
    dataset.train.images.pixels[:] = torch.tensor([[10, 20], [30, 40]], dtype=torch.uint8)
    (batch,) = epoch_of(dataset, batch_size=2000)
    pixels = (batch.inputs * dataset.std[0] + dataset.mean[0]) * 255
    # 9 crops x 2 mirrors; the crop of one corner, such as 40 alone, is seen in either mirror.
    seen, times = pixels.round().flatten(1).unique(dim=0, return_counts=True)
    assert len(seen) == 18
    assert float(((times - 2000 / 18) ** 2 / (2000 / 18)).sum()) < 41  # once in 1,000 times


def test_images_stay_uint8_and_inputs_are_channels_last():
    dataset = toy_dataset()
    images = images_of(dataset)
    crops = dataset.augment.crops(dataset.train.images.pixels)
    assert crops.dtype == torch.uint8
    stored = crops.untyped_storage().nbytes()
    assert stored == 47 * 3 * 12 * 12  # one padded copy; no crop is stored
    before = dataset.train.images.pixels.clone()
    (*_, batch) = images
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(dataset.train.images.pixels, before)


@given(st.integers(1, 50), st.integers(2, 20))
def test_batches_are_full_but_the_last(samples, batch_size):
    dataset = toy_dataset(counts=(samples,), size=2, channels=1, padding=0)
    images = images_of(dataset, batch_size=batch_size)
    sizes = [len(batch.target) for batch in images]
    assert len(images) == len(sizes) == math.ceil(samples / batch_size)
    assert sum(sizes) == samples
    assert set(sizes[:-1]) <= {batch_size}


def test_sampler_decides_the_classes():
    batches = epoch_of(toy_dataset((300, 20, 4)), sampler=ClassBalancedSampler)
    counts = torch.bincount(torch.cat([b.target for b in batches]))
    assert counts.sum() == 324
    assert ((counts - 108).abs() < 40).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_mixup_shares_follow_beta(alpha):
    dataset = toy_dataset(counts=(6000,), size=2, channels=1, padding=0)
    shares = [float(b.share) for b in epoch_of(dataset, batch_size=2, mixup_alpha=alpha)]
    assert len(shares) == 3000
    assert 0 <= min(shares) <= max(shares) <= 1
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_mixup_loss_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 3, generator=generator)
    target, partner = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 1, 0, 2, 2, 0])
    calls = []

    def criterion(given, labels):
        calls.append(labels)
        return F.cross_entropy(given, labels)

    plain = Batch(outputs, target).loss(criterion, outputs)
    torch.testing.assert_close(plain, F.cross_entropy(outputs, target))
    mixed = Batch(outputs, target, partner, torch.tensor(0.3)).loss(criterion, outputs)
    expected = 0.3 * F.cross_entropy(outputs, target) + 0.7 * F.cross_entropy(outputs, partner)
    torch.testing.assert_close(mixed, expected)
    # Two calls, so that a random loss draws fresh noise for each.
    assert [c.tolist() for c in calls[1:]] == [target.tolist(), partner.tolist()]


# Streams


def draws(streams):
    return {
        name: torch.rand(8, generator=getattr(streams, name)).tolist() for name in streams.state()
    }


def test_streams_are_all_different():
    every = [
        tuple(values)
        for seed in (0, 1, 2**32 - 1)
        for stage in (1, 2)
        for rank in (0, 1)
        for name, values in draws(Streams.seeded(seed, stage, rank, CPU)).items()
        if rank == 0 or name in ("device", "noise")
    ]
    assert len(set(every)) == len(every) == 3 * 2 * 7


def test_ranks_share_what_they_must_agree_on():
    first, second = (draws(Streams.seeded(3, 1, rank, CPU)) for rank in (0, 1))
    assert {k for k in first if first[k] == second[k]} == {"weights", "order", "mixup"}


def test_streams_are_restored():
    streams = Streams.seeded(0, 1, 0, CPU)
    draws(streams)
    state = streams.state()
    expected = draws(streams)
    other = Streams.seeded(9, 2, 1, CPU)
    other.restore(state)
    assert draws(other) == expected


def test_an_epoch_after_a_restore_is_the_same():
    dataset = toy_dataset()
    images = images_of(dataset, mixup_alpha=1.0)
    list(images)
    state = images.streams.state()
    expected = list(images)
    later = images_of(dataset, seed=5, mixup_alpha=1.0)
    later.streams.restore(state)
    for batch, other in zip(expected, later, strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.target, other.target)
        assert torch.equal(batch.partner, other.partner)


# Processes


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("samples", [48, 47, 33])  # the last batch of 33 by 16 has one image
def test_processes_share_every_batch(ranks, samples):
    dataset = toy_dataset(counts=(samples,), size=2, channels=1, padding=0, flip=False)
    dataset.train.labels[:] = torch.arange(samples)  # so that a label names its image
    whole = torch.cat([batch.target for batch in epoch_of(dataset)])
    parts = [epoch_of(dataset, rank=r, ranks=ranks) for r in range(ranks)]
    seen = []
    for shares in zip(*parts, strict=True):
        sizes = [len(share.target) for share in shares]
        assert min(sizes) >= 1  # the mean loss of an empty share would be NaN
        assert [s.weight for s in shares] == [ranks * size / sum(sizes) for size in sizes]
        seen += [s.target[i].item() for i in range(max(sizes)) for s in shares if i < len(s.target)]
    assert seen == whole.tolist()


# Speed


class NoAnswer(TorchDispatchMode):
    """Refuses every operation that would make the host wait for the device."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2", "masked_select")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.split(".")[-1]
        assert name not in self.waits, f"{name} makes the host wait"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mixup_alpha", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_asked_of_the_device_between_batches(mixup_alpha, frozen):
    images = images_of(toy_dataset((90, 30, 9), size=32), mixup_alpha=mixup_alpha)
    batches = FrozenFeatures(images, lambda x: x.flatten(1)) if frozen else images
    epoch = iter(batches)
    next(epoch)  # the draws of the epoch come before it
    with NoAnswer():
        assert len(list(epoch)) == len(batches) - 1
        with pytest.raises(AssertionError, match="makes the host wait"):
            float(torch.ones(()))


# Other batches


def test_clean_batches_are_in_order_and_normalised():
    dataset = toy_dataset((100, 90, 9), size=32, padding=4)
    parts, labels = zip(*clean_batches(dataset.train, dataset, CPU), strict=True)
    assert [len(part) for part in parts] == [64, 64, 64, 7]
    assert torch.equal(torch.cat(labels), dataset.train.labels)
    expected = [
        transforms.normalize(
            transforms.to_dtype(image, torch.float32, scale=True), dataset.mean, dataset.std
        )
        for image in dataset.train.images.pixels
    ]
    torch.testing.assert_close(torch.cat(parts), torch.stack(expected), rtol=0, atol=1e-5)
    shares = [next(iter(clean_batches(dataset.train, dataset, CPU, r, 4)))[0] for r in range(4)]
    for rank, share in enumerate(shares):  # of four processes
        torch.testing.assert_close(share, torch.cat(parts)[rank::4])


@pytest.mark.parametrize("mixup_alpha", [0.0, 1.0])
def test_frozen_features_are_the_same_batches(mixup_alpha):
    dataset = toy_dataset((90, 30, 9), size=32)  # several groups of batches

    def backbone(images):
        return images.mean((2, 3))

    plain = epoch_of(dataset, mixup_alpha=mixup_alpha)
    frozen = FrozenFeatures(images_of(dataset, mixup_alpha=mixup_alpha), backbone)
    assert len(frozen) == len(plain)
    for batch, expected in zip(frozen, plain, strict=True):
        torch.testing.assert_close(batch.inputs, backbone(expected.inputs))
        assert torch.equal(batch.target, expected.target)
        if mixup_alpha:
            assert torch.equal(batch.partner, expected.partner)
            assert batch.share == expected.share


def epochs_of_five_steps():
    """Each kind of an epoch's batches, made anew by a call, with its streams."""
    data = toy_dataset((40, 22, 10))

    def plain(alpha):
        batches = images_of(data, mixup_alpha=alpha)
        return batches, batches.streams

    def frozen():
        batches, streams = plain(0.5)
        return FrozenFeatures(batches, lambda images: images.mean((2, 3))), streams

    def paired():
        batches, streams = plain(0.0)
        sampler = ClassBalancedSampler(data.train.labels, generator=streams.order)
        return Paired(replace(batches, views=2), replace(batches, sampler=sampler), 0.3), streams

    return {
        "plain": lambda: plain(0.0),
        "mixup": lambda: plain(0.5),
        "frozen features": frozen,
        "two branches": paired,
    }


@pytest.mark.parametrize("kind", epochs_of_five_steps())
def test_the_rest_of_an_epoch_is_that_of_the_whole(kind, monkeypatch):
    """Drawn as if the steps before had been; but no image of these is looked at."""
    make, real, asked = epochs_of_five_steps()[kind], MemoryImages.batches, []

    def counted(images, steps, *more):
        asked.append(len(steps))
        return real(images, steps, *more)

    monkeypatch.setattr(MemoryImages, "batches", counted)
    monkeypatch.setattr(epoch, "inference_batch", lambda device, shape: 32)  # two batches
    whole, streams = make()
    expected = [batch.tensors() for batch in whole]
    assert len(expected) == 5
    for steps in range(1, 6):
        again, others = make()
        rest = again.without_first(steps - 1).without_first(1)
        assert len(rest) == 5 - steps
        asked.clear()
        for ours, theirs in zip(rest, expected[steps:], strict=True):
            for own, right in zip(ours.tensors(), theirs, strict=True):
                assert torch.equal(own, right)
        read_again = steps % 2 if kind == "frozen features" else 0  # of a group of two
        assert set(asked) == {5 - steps + read_again}
        for name, state in others.state().items():
            assert torch.equal(state, streams.state()[name]), name
