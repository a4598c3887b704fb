"""Features in the place of images: the same bits through an epoch, and who can train on them."""

import pytest
import torch

from gcl_core import GCLError
from gcl_core.data.epoch import TrainingImages, clean_batches
from gcl_core.data.samplers import InstanceBalancedSampler
from gcl_core.data.streams import Streams
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.networks.backbones import Features
from gcl_core.networks.models import build_network
from gcl_core.training.two_stages import run
from toys import seeded, toy_dataset, toy_features

CPU = torch.device("cpu")
NO_BACKBONE = ("bbn", "hybrid_sc", "hybrid_psc", "oltr")


def settings_of(method, network="features"):
    changes = {"network": network, "precision": "float32", "batch_size": 8, "lr": 0.05}
    return resolve("digits", method, "smoke", **changes)


def test_features_come_out_of_an_epoch_as_they_went_in():
    dataset = toy_features()
    features, labels = dataset.train.images.pixels, dataset.train.labels
    before = features.clone()
    streams = Streams.seeded(0, 1, 0, CPU)
    sampler = InstanceBalancedSampler(labels, generator=seeded())
    batches = list(TrainingImages(dataset, sampler, 7, streams, CPU))
    inputs = torch.cat([batch.inputs for batch in batches])
    taken = (inputs.flatten(1)[:, None] == features.flatten(1)).all(2)
    assert taken.sum(0).tolist() == [1] * len(features)  # every one once
    assert torch.equal(labels[taken.int().argmax(1)], torch.cat([b.target for b in batches]))
    clean = torch.cat([images for images, _ in clean_batches(dataset.train, dataset, CPU)])
    assert torch.equal(clean, features)
    assert torch.equal(features, before)


def test_the_network_is_its_classifier():
    network = build_network("features", 3, "linear", 8, seeded())
    features = torch.randn(5, 8, 1, 1, generator=seeded())
    assert torch.equal(network(features), network.head(features[:, :, 0, 0]))
    assert {name for name, _ in network.named_parameters()} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("method", ["ce", "ce_ncm", "tde", "ldam_drw", "disalign", "gcl_crt"])
def test_methods_learn_separable_features(tmp_path, method):
    done = run(settings_of(method), tmp_path, dataset=toy_features(), progress="none")
    assert done.result["top1"] > 80  # by chance: 33


@pytest.mark.parametrize("method", NO_BACKBONE)
def test_what_trains_the_backbone_is_refused_by_name(method):
    stage1, stage2 = METHODS[method].stage1, METHODS[method].stage2
    name = stage2.rebalance.name if stage2 else stage1.objective.name
    with pytest.raises(GCLError, match=f"^(objective|re-balancing) '{name}' trains the backbone"):
        settings_of(method)


def test_there_are_neither_maps_nor_blocks():
    for call in (lambda: Features(8).maps(torch.ones(2, 8, 1, 1)), Features(8).pop_block):
        with pytest.raises(GCLError, match="^Features has no .*; take another network$"):
            call()


@pytest.mark.parametrize(
    ("dataset", "network", "message"),
    [
        (toy_dataset(), "features", "takes features, and toy has pixels"),
        (toy_features(), "digits_cnn", "takes pixels, and toy features has features"),
    ],
)
def test_pixels_and_features_are_not_mixed_up(tmp_path, dataset, network, message):
    with pytest.raises(GCLError, match=message):
        run(settings_of("ce", network), tmp_path, dataset=dataset, progress="none")
    assert not list(tmp_path.iterdir())
