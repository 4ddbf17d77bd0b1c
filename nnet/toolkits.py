"""Weights of other toolkits whose layers are ours one to one; utils/import_checkpoint makes bundles of them.

Each Architecture is a table from the names of our tensors to those of a checkpoint. Sizes are read from the shapes of
its tensors; what shapes do not show (strides, dilations, order of operations) is as in the toolkit's code and recipes.

    wespeaker ResNet       the last two axes of a kernel are frequency and time, ours are time and frequency; a pooled
                           vector has the bands of one channel side by side, ours the channels of one band
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnet.config import NetworkConfig, network_config
from nnet.embed import NoRandomNumbers
from nnet.model import Network
from utils.errors import InputError, first_five

Tensors = Mapping[str, Tensor]
Sizes = Callable[[str, int], int]  # of a tensor along an axis; raises InputError if there is none


class Architecture(NamedTuple):
    """One kind of network of a toolkit.

    marks: names of tensors that it alone has; parts: returns encoder, pooling and head of our configuration, and F,
    the values per frame; names: what is replaced in our names, in this order, to give those of the checkpoint;
    changes: what becomes of the tensors whose name here matches, given our encoder's options; refused: what only
    variants without counterpart here have; left_out: tensors that an embedding does not depend on; system: our
    configuration that is most alike.
    """

    title: str
    marks: tuple[str, ...]
    parts: Callable[[Tensors, Sizes], tuple[dict[str, Any], int]]
    names: Mapping[str, str]
    changes: Mapping[str, Callable[[Tensor, dict[str, Any]], Tensor]]
    refused: Mapping[str, str]
    left_out: str
    system: str


def count(tensors: Tensors, name: str) -> int:
    """Return how many of name.format(0), name.format(1) .. exist before the first that does not."""
    number = 0
    while name.format(number) in tensors:
        number += 1
    return number


def parts_of_wespeaker_resnet(tensors: Tensors, size: Sizes) -> tuple[dict[str, Any], int]:
    """Return the parts of ResNet-18 or 34 (basic blocks) with temporal statistics pooling, TSTP."""
    stages = range(1, 5)
    channels = [size(f"layer{stage}.0.conv1.weight", 0) for stage in stages]
    pooled = size("seg_1.weight", 1)
    bands, rest = divmod(pooled, 2 * channels[-1])
    if rest:
        raise InputError(f"seg_1.weight takes {pooled} values, not mean and deviation of {channels[-1]} channels: its "
                         "pooling is not TSTP, wanted that")
    return {"encoder": {"type": "resnet", "channels": channels, "frequency": "flatten",
                        "blocks": [count(tensors, f"layer{stage}.{{}}.conv1.weight") for stage in stages]},
            "pooling": {"type": "statistics", "deviation": "wespeaker"},
            "head": {"layers": [{"dim": size("seg_1.weight", 0), "embedding": "affine"}]}}, 8 * bands


def channels_of_bands(x: Tensor, encoder: dict[str, Any]) -> Tensor:
    """Return an affine map of the pooled vector with its columns as we flatten them: (2 C F') to (2 F' C)."""
    return x.unflatten(1, (2, encoder["channels"][-1], -1)).transpose(2, 3).flatten(1)


ARCHITECTURES = {"wespeaker": (
    Architecture(
        "wespeaker's ResNet", ("conv1.weight", "layer4.0.conv2.weight", "seg_1.weight"), parts_of_wespeaker_resnet,
        names={r"encoder\.stem\.": "conv1.", r"encoder\.stem_norm\.": "bn1.",
               **{rf"encoder\.stages\.{stage}\.": f"layer{stage + 1}." for stage in range(4)},
               r"\.first\.": ".conv1.", r"\.first_norm\.": ".bn1.", r"\.second\.": ".conv2.",
               r"\.second_norm\.": ".bn2.", r"\.around\.": ".shortcut.", r"head\.layers\.0\.affine\.": "seg_1."},
        changes={r"encoder\..*(stem|first|second|around\.0)\.weight": lambda x, _: x.transpose(2, 3),
                 r"head\..*weight": channels_of_bands},
        refused={r"seg_2\.": "a second embedding layer",
                 r"layer\d\.\d+\.conv3\.": "bottleneck blocks (ResNet-50 and deeper)",
                 r"pool\.": "another pooling than TSTP"},
        left_out=r"projection\.", system="resnet34_tstp"),
)}


def config_of(toolkit: str, tensors: Tensors) -> tuple[Architecture, dict[str, Any], int]:
    """Return the architecture of a checkpoint, with encoder, pooling and head of our configuration, and F.

    Raises InputError if it is none of the toolkit's, or a variant without counterpart here.
    """
    for one in ARCHITECTURES[toolkit]:
        if all(name in tensors for name in one.marks):
            break
    else:
        wanted = " or ".join(f"{one.title} ({first_five(one.marks)})" for one in ARCHITECTURES[toolkit])
        raise InputError(f"another architecture, with the tensors {first_five(tensors)}; wanted {wanted}")
    for name in tensors:
        for pattern, what in one.refused.items():
            if re.match(pattern, name):
                raise InputError(f"{name} belongs to {what}: a variant of {one.title} without counterpart here")

    def size(name: str, axis: int) -> int:
        if name not in tensors or tensors[name].dim() <= axis:
            found = list(tensors[name].shape) if name in tensors else "missing"
            raise InputError(f"{name} is {found}, wanted {axis + 1} axes or more; is the checkpoint whole?")
        return tensors[name].shape[axis]

    return one, *one.parts(tensors, size)


def untrained(config: NetworkConfig) -> dict[str, Tensor]:
    """Return the tensors of a network, with shapes and without values."""
    with torch.device("meta"), NoRandomNumbers():
        return Network(config, config.feature_dim, config.speakers).state_dict()


def weights_of(one: Architecture, tensors: Tensors, config: NetworkConfig) -> dict[str, Tensor]:
    """Return the checkpoint's weights by our names. Its classifier, of speakers unknown here, becomes zeros.

    Raises InputError for the first tensor that is missing, of another shape, not finite, or without counterpart.
    """
    found, used = {}, set()
    for name, wanted in untrained(config).items():
        if name.startswith("loss."):
            found[name] = torch.zeros(wanted.shape)
            continue
        theirs = name
        for pattern, text in one.names.items():
            theirs = re.sub(pattern, text, theirs)
        used.add(theirs)
        if theirs not in tensors:
            raise InputError(f"{theirs} is missing in {one.title}")
        value = tensors[theirs]
        if value.dim() == wanted.dim() + 1 and value.shape[-1] == 1:
            value = value.squeeze(-1)  # a convolution over one frame is an affine map
        shape = list(value.shape)
        if value.dim() == wanted.dim() and value.numel() == wanted.numel():
            for pattern, change in one.changes.items():
                value = change(value, config.encoder) if value.dim() and re.match(pattern, name) else value
        if value.shape != wanted.shape or value.is_floating_point() != wanted.is_floating_point():
            raise InputError(f"{theirs} is {shape} ({value.dtype}), wanted {list(wanted.shape)} as in {one.title}")
        if not value.isfinite().all():
            raise InputError(f"{theirs} has NaN or infinite values")
        found[name] = value.to(wanted.dtype).contiguous()
    if rest := [name for name in tensors if name not in used and not re.match(one.left_out, name)]:
        raise InputError(f"{first_five(rest)} have no place in {one.title}")
    return found


def imported(toolkit: str, tensors: Tensors, base: Mapping[str, Any]) -> tuple[str, NetworkConfig, dict[str, Tensor]]:
    """Return the name of our configuration that is most alike, the network's own one, and its weights.

    tensors: of the checkpoint, by name; base: the other keys of the configuration.
    """
    one, parts, dim = config_of(toolkit, tensors)
    config = network_config({"kind": "network", "frontend": {"cmn": "chunk"}, "train": {"epochs": 1}, "speakers": 1,
                             "feature_dim": dim, **parts, **base}, one.title)
    return one.system, config, weights_of(one, tensors, config)
