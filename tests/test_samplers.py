"""Sampling probabilities against exact arithmetic and the published values; draws against both."""

import time
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from bits import equal
from gcl_core import (
    CBENSampler,
    ClassBalancedSampler,
    EffectiveNumberSampler,
    GCLError,
    InstanceBalancedSampler,
    cloud_sizes,
    long_tailed_counts,
)
from gcl_core.data.samplers import (
    DistributedSamplerWrapper,
    ReversedSampler,
    SquareRootSampler,
    cben_shares,
    labels_of,
)
from processes import in_each
from toys import seeded

getcontext().prec = 60
DOCS = Path(__file__).parents[1] / "docs"
SAMPLERS = [InstanceBalancedSampler, ClassBalancedSampler, EffectiveNumberSampler, CBENSampler]
SAMPLERS += [SquareRootSampler, ReversedSampler]
WITH_REPLACEMENT = SAMPLERS[1:]
COUNTS = st.lists(st.integers(1, 300), min_size=2, max_size=12)


def repeated(counts, dtype=torch.int64):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(dtype)


def exact_masses(counts, betas):
    """n_j rho_j / sum of n_i rho_i with rho_j = (1 - beta_j) / (1 - beta_j^n_j), to 60 digits."""
    betas = [Decimal(beta) for beta in betas]
    masses = [n * (1 - b) / (1 - b**n) for n, b in zip(counts, betas, strict=True)]
    return torch.tensor([float(mass / sum(masses)) for mass in masses], dtype=torch.float64)


@pytest.mark.parametrize(
    ("n_max", "classes", "sampler", "head", "tail", "digits"),
    [
        (5000, 10, ClassBalancedSampler, 0.1, 0.1, 5),
        (5000, 10, EffectiveNumberSampler, 0.11929, 0.09411, 5),
        (5000, 10, CBENSampler, 0.11940, 0.09418, 5),
        (5000, 10, lambda y: CBENSampler(y, 0.999, 9e-4), 0.2857, 0.0569, 4),
        (500, 100, EffectiveNumberSampler, 0.01020, 0.00995, 5),
        (500, 100, CBENSampler, 0.01020, 0.00995, 5),
    ],
)
def test_masses_of_cifar_at_ratio_100(n_max, classes, sampler, head, tail, digits):
    probabilities = sampler(repeated(long_tailed_counts(n_max, classes, 100))).class_probabilities
    ends = (round(float(probabilities[0]), digits), round(float(probabilities[-1]), digits))
    assert ends == (head, tail)


@given(COUNTS)
def test_square_root_and_reversed_masses(counts):
    roots, inverse = [n**0.5 for n in counts], [1 / n for n in counts]
    for sampler, plain in ((SquareRootSampler, roots), (ReversedSampler, inverse)):
        expected = torch.tensor([x / sum(plain) for x in plain], dtype=torch.float64)
        masses = sampler(repeated(counts)).class_probabilities
        torch.testing.assert_close(masses, expected)


@given(COUNTS, st.floats(0, 0.99999))
def test_effective_number_masses_are_exact(counts, beta):
    masses = EffectiveNumberSampler(repeated(counts), beta).class_probabilities
    torch.testing.assert_close(masses, exact_masses(counts, [beta] * len(counts)))


@given(COUNTS, st.floats(0, 0.99), st.floats(0, 0.00999))
def test_cben_masses_are_exact(counts, a, b):
    betas = [a + b * size for size in cloud_sizes(counts).tolist()]
    masses = CBENSampler(repeated(counts), a, b).class_probabilities
    torch.testing.assert_close(masses, exact_masses(counts, betas))


def test_masses_are_exact_for_beta_very_near_one():
    counts, beta = [1000, 30, 1], 1 - 2**-40  # 1 - beta^n loses every digit when written plainly
    masses = EffectiveNumberSampler(repeated(counts), beta).class_probabilities
    torch.testing.assert_close(masses, exact_masses(counts, [beta] * 3), rtol=1e-12, atol=0)


@given(COUNTS)
def test_limits_of_beta(counts):
    labels = repeated(counts)
    instance = InstanceBalancedSampler(labels).class_probabilities
    balanced = ClassBalancedSampler(labels).class_probabilities
    torch.testing.assert_close(instance, torch.tensor(counts).double() / sum(counts))
    torch.testing.assert_close(balanced, torch.full_like(balanced, 1 / len(counts)))
    torch.testing.assert_close(EffectiveNumberSampler(labels, 0.0).class_probabilities, instance)
    near_one = EffectiveNumberSampler(labels, 1 - 1e-12).class_probabilities
    torch.testing.assert_close(near_one, balanced, rtol=1e-6, atol=0)
    same = EffectiveNumberSampler(labels, 0.9).class_probabilities
    torch.testing.assert_close(CBENSampler(labels, 0.9, 0.0).class_probabilities, same)


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_weights_are_shared_equally_within_a_class(sampler, labels):
    drawn = sampler(labels)
    assert float(drawn.weights.sum()) == pytest.approx(1)
    for j, probability in enumerate(drawn.class_probabilities.tolist()):
        members = [i for i, label in enumerate(labels) if label == j]
        assert float(drawn.weights[members].sum()) == pytest.approx(probability)
        assert len(set(drawn.weights[members].tolist())) <= 1
        assert (probability > 0) == bool(members)
    assert set(drawn.draw().tolist()) <= set(range(len(labels)))


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(counts=COUNTS, seed=st.integers(0, 99))
def test_order_of_images_and_of_classes_does_not_matter(sampler, counts, seed):
    classes = torch.randperm(len(counts), generator=seeded(seed))
    labels = repeated(counts)
    renamed = classes[labels][torch.randperm(len(labels), generator=seeded(seed))]
    before, after = sampler(labels), sampler(renamed)
    torch.testing.assert_close(after.class_probabilities[classes], before.class_probabilities)


def chi_squared(observed, expected):
    return float(((observed - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("sampler", WITH_REPLACEMENT)
def test_draws_follow_the_weights_as_torch_draws_them(sampler):
    labels = repeated([20, 6, 3, 1])[torch.randperm(30, generator=seeded(5))]
    drawn = sampler(labels, num_samples=60_000, generator=seeded(0))
    observed = torch.bincount(drawn.draw(), minlength=30).double()
    # 29 degrees of freedom: 58 is passed once in 1,000 times.
    assert chi_squared(observed, drawn.weights * 60_000) < 58
    reference = WeightedRandomSampler(drawn.weights, 60_000, generator=seeded(1))
    theirs = torch.bincount(torch.tensor(list(reference)), minlength=30).double()
    pooled = (observed + theirs) / 2
    assert chi_squared(observed, pooled) + chi_squared(theirs, pooled) < 58


@pytest.mark.parametrize("num_samples", [1, 7, 10, 25])
def test_instance_balanced_is_a_shuffle(num_samples):
    labels = repeated([7, 2, 1])
    draw = InstanceBalancedSampler(labels, num_samples=num_samples, generator=seeded()).draw()
    times = torch.bincount(draw, minlength=10)
    assert len(draw) == num_samples
    assert times.max() - times.min() <= 1
    assert draw.tolist() != sorted(draw.tolist()) or num_samples == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_generator_decides_the_draws(sampler):
    labels = repeated([9, 3, 2])
    first, again, other = (list(sampler(labels, generator=seeded(s))) for s in (0, 0, 1))
    assert first == again != other
    assert all(type(index) is int for index in first)
    epochs = sampler(labels, generator=seeded(0))
    assert list(epochs) == first != list(epochs)  # each epoch is another


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_they_are_torch_samplers(sampler):
    labels = repeated([9, 3, 2])
    drawn = sampler(labels, num_samples=20, generator=seeded())
    assert len(drawn) == len(list(drawn)) == 20
    assert [len(batch) for batch in BatchSampler(drawn, 8, drop_last=False)] == [8, 8, 4]
    loader = DataLoader(TensorDataset(labels), batch_size=20, sampler=drawn)
    assert len(next(iter(loader))[0]) == 20
    assert len(sampler(labels)) == 14


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(sampler, dtype):
    counts = [5, 3, 2]
    small = sampler(repeated(counts, dtype), generator=seeded())
    plain = sampler(repeated(counts).tolist(), generator=seeded())
    assert torch.equal(small.weights, plain.weights)
    assert torch.equal(small.draw(), plain.draw())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_labels_of_a_shuffled_table_are_taken_by_position(sampler):
    labels = pd.Series([0, 1, 1, 2, 0], index=[3, 9, 0, 1, 4])
    expected = sampler(labels.tolist()).weights
    assert torch.equal(sampler(labels).weights, expected)
    assert torch.equal(sampler(labels.astype("category")).weights, expected)


class Labelled(TensorDataset):
    def __init__(self, name, labels):
        super().__init__(torch.zeros(len(labels)))
        setattr(self, name, labels)


def test_labels_of_data_sets_and_of_their_parts():
    listed, array = Labelled("targets", [3, 1, 4, 1]), Labelled("labels", np.array([5, 9, 2]))
    assert labels_of(listed).tolist() == [3, 1, 4, 1]
    assert labels_of(array).tolist() == [5, 9, 2]
    both = ConcatDataset([Subset(listed, [2, 0]), array])
    assert labels_of(both).tolist() == [4, 3, 5, 9, 2]
    assert labels_of(Subset(both, np.array([4, 0]))).tolist() == [2, 4]
    assert labels_of(Subset(both, [])).tolist() == []
    with pytest.raises(GCLError, match="TensorDataset has neither targets nor labels"):
        labels_of(Subset(TensorDataset(torch.zeros(3)), [0]))
    for mask in ([True, False, True, False], np.array([3, 1, 4, 1]) > 1):
        with pytest.raises(GCLError, match="a Subset takes indices, not booleans"):
            labels_of(Subset(listed, mask))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_default_device_changes_nothing(sampler):
    labels, generator = [0] * 9 + [1] * 3, seeded()
    with torch.device("meta"):  # stands for a GPU: nothing is computed there
        drawn = list(sampler(labels, generator=generator))
    assert drawn == list(sampler(labels, generator=seeded()))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_several_processes_share_an_epoch(sampler):
    labels = repeated([9, 3, 2])
    for ranks in (1, 2, 3, 20):
        shares = [
            DistributedSamplerWrapper(sampler(labels, generator=seeded(7)), ranks, rank)
            for rank in range(ranks)
        ]
        alone = sampler(labels, generator=seeded(7))
        for _ in range(2):  # each epoch is another
            whole = list(alone)
            every = [i for step in zip(*shares, strict=True) for i in step]
            assert every == (2 * whole)[: len(every)]
            assert 0 <= len(every) - len(whole) < ranks
            assert {len(share) * ranks for share in shares} == {len(every)}


def test_a_share_needs_what_all_processes_agree_on():
    for wrong, message in (
        ((CBENSampler([0, 1]), 2, 0), "^give the sampler a generator, seeded alike in every"),
        ((CBENSampler([0, 1], generator=seeded()), 2, 2), "below num_replicas 2, got 2"),
        ((CBENSampler([0, 1], generator=seeded()),), "^give num_replicas and rank, or call init_"),
    ):
        with pytest.raises(GCLError, match=message):
            DistributedSamplerWrapper(*wrong)


def run_the_example(out):
    scope = {}
    exec((DOCS / "clusters.md").read_text().split("```python\n")[1].split("```")[0], scope)
    torch.save(
        (scope["network"].module.state_dict(), len(scope["loader"])), out / str(scope["rank"])
    )


def test_the_example_of_the_docs_trains_one_network_in_two_processes(tmp_path):
    in_each(2, run_the_example, tmp_path)
    (first, batches), (second, _) = (torch.load(tmp_path / rank) for rank in "01")
    assert equal(first, second)
    assert batches == 3  # of 16 images, of the half of 70


@pytest.mark.parametrize("sampler", WITH_REPLACEMENT)
def test_a_class_without_images_is_never_drawn(sampler):
    draws = sampler([0, 0, 3, 3, 3, 5], num_samples=2000, generator=seeded()).draw()
    assert set(draws.tolist()) == {0, 1, 2, 3, 4, 5}


def test_one_class_only():
    for sampler in SAMPLERS:
        assert sampler([0, 0, 0]).weights.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_size_of_inaturalist_in_moments(sampler):
    counts = torch.full((8142,), 53)
    counts[: 437_513 - 8142 * 53] += 1
    counts[0] += 437_513 - int(counts.sum())
    labels = repeated(counts.tolist())
    began = time.process_time()
    indices = list(sampler(labels))
    assert time.process_time() - began < 2
    assert len(indices) == 437_513


def test_more_images_than_multinomial_takes():
    labels = torch.zeros(2**24 + 10, dtype=torch.uint8)
    labels[-5:] = 1
    sampler = ClassBalancedSampler(labels, num_samples=4000, generator=seeded())
    draws = sampler.draw()
    tail = draws >= 2**24 + 5
    assert 0.45 < float(tail.double().mean()) < 0.55
    assert draws[tail].unique().tolist() == list(range(2**24 + 5, 2**24 + 10))
    assert (draws[~tail] > 2**23).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassBalancedSampler([]), "no labels"),
        (lambda: ClassBalancedSampler([0, -1]), "got -1"),
        (lambda: ClassBalancedSampler([[0, 1], [1, 0]]), r"labels must be \(N,\), got \(2, 2\)"),
        (lambda: ClassBalancedSampler([(0, 1)] * 3), r"got \(3, 2\); .*; see labels_of\(dataset\)"),
        (lambda: ClassBalancedSampler(np.eye(3)), r"give labels.argmax\(1\) of one-hot rows"),
        (lambda: ClassBalancedSampler(pd.Series([1, 0, None])), r"image 2 has no label \(NaN\)"),
        (
            lambda: CBENSampler(TensorDataset(torch.zeros(3))),
            r"got a data set: give labels_of\(dataset\)",
        ),
        (lambda: CBENSampler(["cat", "dog"]), "labels must be integers: number the classes"),
        (lambda: CBENSampler(pd.Series(["cat", "dog"])), "labels must be integers: number the"),
        (lambda: CBENSampler([0, None]), "labels must be integers: number the classes"),
        (lambda: CBENSampler([3, 10**9]), "below 1000000, got 1000000000: number the classes"),
        (lambda: ClassBalancedSampler([0.0, 1.0]), "labels must be integers"),
        (lambda: ClassBalancedSampler([True, False]), "labels must be integers"),
        (
            lambda: ClassBalancedSampler([0, 1], num_samples=0),
            "num_samples must be a whole number >= 1, got 0",
        ),
        (
            lambda: ClassBalancedSampler([0, 1], num_samples=1.5),
            "num_samples must be a whole number >= 1, got 1.5",
        ),
        (lambda: EffectiveNumberSampler([0, 1], 1.0), r"beta must be in \[0, 1\), got 1.0"),
        (lambda: EffectiveNumberSampler([0, 1], -0.1), r"beta must be in \[0, 1\), got -0.1"),
        (
            lambda: EffectiveNumberSampler([0, 1], float("nan")),
            r"beta must be in \[0, 1\), got nan",
        ),
        (lambda: CBENSampler([0, 1], generator=0), "generator must be a torch.Generator, got int"),
        (lambda: CBENSampler([0, 1], 1.0), r"a and a \+ b must be in \[0, 1\)"),
        (lambda: CBENSampler([0, 1], 0.9, 0.1), r"a and a \+ b must be in \[0, 1\)"),
        (lambda: CBENSampler([0, 1], 0.9, -0.95), r"a and a \+ b must be in \[0, 1\)"),
    ],
)
def test_samplers_refuse(make, message):
    with pytest.raises(GCLError, match=message):
        make()


@given(COUNTS, st.floats(0, 0.999), st.floats(0, 1))
def test_shares_are_those_of_the_sampler(counts, a, part):
    b = 0.999 * part * (1 - a)
    sampler = CBENSampler(repeated(counts), a, b)
    assert torch.allclose(cben_shares(counts, a, b), sampler.class_probabilities, rtol=1e-9)


def test_shares_of_what_is_no_beta_are_refused():
    with pytest.raises(GCLError, match=r"a and a \+ b must be in \[0, 1\)"):
        cben_shares([9, 3, 1], 0.9, 0.2)


def test_where_cben_parts_from_en():
    counts = long_tailed_counts(5000, 10, 100)
    shares = cben_shares(counts, 0.999, 9e-4)
    assert [round(float(shares[j]), 4) for j in (0, 9)] == [0.2857, 0.0569]
    published, plain = (cben_shares(counts, 0.9999, b) for b in (1e-5, 0.0))
    assert (published / plain - 1).abs().max() < 0.001
