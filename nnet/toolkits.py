"""Weights of other toolkits whose layers are ours one to one; utils/import_checkpoint makes bundles of them.

Each Architecture is a table from the names of our tensors to those of a checkpoint. Sizes are read from the shapes of
its tensors; what shapes do not show (strides, dilations, order of operations) is as in the toolkit's code and recipes.

    wespeaker ResNet       the last two axes of a kernel are frequency and time, ours are time and frequency; a pooled
                           vector has the bands of one channel side by side, ours the channels of one band
    wespeaker ECAPA        the last group of a Res2 convolution passes unchanged, here the first
    speechbrain ECAPA      mirrored padding, batch norm on the output frames and in the attention (keys of ours)
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnet.config import NetworkConfig, network_config
from nnet.embed import NoRandomNumbers
from nnet.model import Network
from utils.errors import InputError, first_five
from utils.features.options import read_feature_options, written_out

Tensors = Mapping[str, Tensor]
Sizes = Callable[[str, int], int]  # of a tensor along an axis; raises InputError if there is none
# The name of our configuration that is most alike; encoder, pooling and head; F, the values per frame.
Parts = tuple[str, dict[str, Any], int]


class Architecture(NamedTuple):
    """One kind of network of a toolkit, and how its tensors become ours."""

    title: str
    marks: tuple[str, ...]  # tensors that no other network of the toolkit has
    parts: Callable[[Tensors, Sizes], Parts]  # reads our options from the sizes of tensors
    names: Mapping[str, str]  # replacements, in this order, that turn our names into the checkpoint's
    # Pattern of our names -> function that turns the checkpoint's tensor into ours, given our encoder's options.
    changes: Mapping[str, Callable[[Tensor, dict[str, Any]], Tensor]]
    refused: Mapping[str, str]  # pattern of tensors -> the variant that has them and that we lack
    left_out: tuple[str, ...]  # prefixes of tensors that do not affect an embedding


def count(tensors: Tensors, name: str) -> int:
    """Return how many of name.format(0), name.format(1) .. exist before the first that does not."""
    number = 0
    while name.format(number) in tensors:
        number += 1
    return number


def parts_of_wespeaker_resnet(tensors: Tensors, size: Sizes) -> Parts:
    """Return the parts of ResNet-18 or 34 (basic blocks) with temporal statistics pooling, TSTP."""
    stages = range(1, 5)
    channels = [size(f"layer{stage}.0.conv1.weight", 0) for stage in stages]
    pooled = size("seg_1.weight", 1)
    bands, rest = divmod(pooled, 2 * channels[-1])
    if rest:
        raise InputError(f"seg_1.weight takes {pooled} values, not mean and deviation of {channels[-1]} channels: its "
                         "pooling is not TSTP, wanted that")
    parts = {"encoder": {"type": "resnet", "channels": channels, "frequency": "flatten",
                         "blocks": [count(tensors, f"layer{stage}.{{}}.conv1.weight") for stage in stages]},
             "pooling": {"type": "statistics", "deviation": "wespeaker"},
             "head": {"layers": [{"dim": size("seg_1.weight", 0), "embedding": "affine"}]}}
    return "resnet34_tstp", parts, 8 * bands


def channels_of_bands(x: Tensor, encoder: dict[str, Any]) -> Tensor:
    """Return an affine map of the pooled vector with its columns as we flatten them: (2 C F') to (2 F' C)."""
    return x.unflatten(1, (2, encoder["channels"][-1], -1)).transpose(2, 3).flatten(1)


def ecapa_like(channels: int) -> str:
    """Return the name of the nearer of our configurations."""
    return "ecapa_c512" if channels <= 512 else "ecapa_c1024"


def parts_of_wespeaker_ecapa(tensors: Tensors, size: Sizes) -> Parts:
    """Return the parts of ECAPA-TDNN with attentive statistics pooling, ASTP, GLOB or not."""
    output = size("conv.weight", 0)
    normed = {"then": ["batch_norm"], "embedding": "output"} if "bn2.weight" in tensors else {"embedding": "affine"}
    channels = size("layer1.conv.weight", 0)
    parts = {"encoder": {"type": "ecapa", "channels": channels, "output": output,
                         "groups": 1 + count(tensors, "layer2.se_res2block.1.convs.{}.weight"),
                         "squeeze": size("layer2.se_res2block.3.linear1.weight", 0)},
             "pooling": {"type": "channel_attentive_statistics", "hidden": size("pool.linear1.weight", 0),
                         "context": size("pool.linear1.weight", 1) == 3 * output, "deviation": "wespeaker"},
             "head": {"before": ["batch_norm"], "layers": [{"dim": size("linear.weight", 0), **normed}]}}
    return ecapa_like(channels), parts, size("layer1.conv.weight", 1)


def last_group_first(axis: int) -> Callable[[Tensor, dict[str, Any]], Tensor]:
    """Return the change that moves the last of the Res2 groups along an axis of channels to the front."""
    return lambda x, encoder: x.roll(encoder["channels"] // encoder["groups"], axis)


def parts_of_speechbrain_ecapa(tensors: Tensors, size: Sizes) -> Parts:
    """Return the parts of ECAPA-TDNN with the dilations and kernels of its recipe."""
    output, attention = size("mfa.conv.conv.weight", 0), "asp.tdnn.conv.conv.weight"
    channels = size("blocks.0.conv.conv.weight", 0)
    parts = {"encoder": {"type": "ecapa", "channels": channels, "output": output,
                         "groups": 1 + count(tensors, "blocks.1.res2net_block.blocks.{}.conv.conv.weight"),
                         "squeeze": size("blocks.1.se_block.conv1.conv.weight", 0), "padding": "reflect",
                         "output_norm": True},
             "pooling": {"type": "channel_attentive_statistics", "hidden": size(attention, 0), "norm": True,
                         "context": size(attention, 1) == 3 * output, "deviation": "speechbrain"},
             "head": {"before": ["batch_norm"], "layers": [{"dim": size("fc.conv.weight", 0), "embedding": "affine"}]}}
    return ecapa_like(channels), parts, size("blocks.0.conv.conv.weight", 1)


# Tensors of well-known networks without counterpart here.
ELSEWHERE = {"fc_embed.weight": "speechbrain's ResNet, whose blocks begin with batch norm: no network here does"}
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
        left_out=("projection.",)),
    Architecture(
        "wespeaker's ECAPA-TDNN", ("layer1.conv.weight", "layer2.se_res2block.1.convs.0.weight", "linear.weight"),
        parts_of_wespeaker_ecapa,
        names={r"encoder\.first\.": "layer1.", **{rf"encoder\.blocks\.{block}\.": f"layer{block + 2}.se_res2block."
                                                for block in range(3)},
               r"\.first\.": ".0.", r"\.parts\.(\d+)\.convolution\.": r".1.convs.\1.",
               r"\.parts\.(\d+)\.norm\.": r".1.bns.\1.", r"\.last\.": ".2.", r"\.weigh\.0\.": ".3.linear1.",
               r"\.weigh\.2\.": ".3.linear2.", r"\.convolution\.": ".conv.", r"\.norm\.": ".bn.",
               r"encoder\.aggregate\.": "conv.", r"pooling\.w\.": "pool.linear1.", r"pooling\.v\.": "pool.linear2.",
               r"head\.before\.0\.": "bn.", r"head\.layers\.0\.affine\.": "linear.",
               r"head\.layers\.0\.then\.0\.": "bn2."},
        changes={r"encoder\.blocks\.\d\.first\.": last_group_first(0),
                 r"encoder\.blocks\.\d\.last\.convolution\.weight": last_group_first(1)},
        refused={r"pool\.(?!linear)": "another pooling than ASTP"}, left_out=("projection.",)),
), "speechbrain": (
    Architecture(
        "speechbrain's ECAPA-TDNN", ("blocks.0.conv.conv.weight", "mfa.conv.conv.weight", "fc.conv.weight"),
        parts_of_speechbrain_ecapa,
        names={r"encoder\.first\.": "blocks.0.", **{rf"encoder\.blocks\.{block}\.": f"blocks.{block + 1}."
                                                  for block in range(3)},
               r"\.first\.": ".tdnn1.", r"\.parts\.(\d+)\.": r".res2net_block.blocks.\1.", r"\.last\.": ".tdnn2.",
               r"\.weigh\.0\.": ".se_block.conv1.conv.", r"\.weigh\.2\.": ".se_block.conv2.conv.",
               r"\.convolution\.": ".conv.conv.", r"encoder\.aggregate\.": "mfa.conv.conv.",
               r"encoder\.output_norm\.": "mfa.norm.", r"pooling\.w\.": "asp.tdnn.conv.conv.",
               r"pooling\.norm\.": "asp.tdnn.norm.", r"pooling\.v\.": "asp.conv.conv.", r"\.norm\.": ".norm.norm.",
               r"head\.before\.0\.": "asp_bn.norm.", r"head\.layers\.0\.affine\.": "fc.conv."},
        changes={}, refused={}, left_out=()),
)}


def parts_of(toolkit: str, tensors: Tensors) -> tuple[Architecture, Parts]:
    """Return the architecture of a checkpoint, with its parts.

    Raises InputError if it is none of the toolkit's, or a variant without counterpart here.
    """
    for name, network in ELSEWHERE.items():
        if name in tensors:
            raise InputError(f"{name} is a tensor of {network}")
    for one in ARCHITECTURES[toolkit]:
        if all(name in tensors for name in one.marks):
            break
    else:
        wanted = " or ".join(f"{one.title} ({first_five(one.marks)})" for one in ARCHITECTURES[toolkit])
        raise InputError(f"another architecture, with the tensors {first_five(tensors)}; wanted {wanted}")
    for name in tensors:
        for pattern, variant in one.refused.items():
            if re.match(pattern, name):
                raise InputError(f"{name} belongs to {variant}: a variant of {one.title} without counterpart here")

    def size(name: str, axis: int) -> int:
        if name not in tensors or tensors[name].dim() <= axis:
            found = list(tensors[name].shape) if name in tensors else "missing"
            raise InputError(f"{name} is {found}, wanted a tensor with axis {axis + 1}; is the checkpoint whole?")
        return tensors[name].shape[axis]

    return one, one.parts(tensors, size)


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
        found[name] = value.to(wanted.dtype).contiguous()
        if not found[name].isfinite().all():
            raise InputError(f"{theirs} has NaN or infinite values")
    if rest := [name for name in tensors if name not in used and not name.startswith(one.left_out)]:
        raise InputError(f"{first_five(rest)}: no place in {one.title}; wanted a variant without")
    return found


def imported(toolkit: str, tensors: Tensors, features: Path | None) -> tuple[str, NetworkConfig, dict[str, Tensor]]:
    """Return the name of our configuration that is most alike, the network's own one, and its weights.

    tensors: of the checkpoint, by name; features: the file of its options of features; None: they cannot be made here,
    so the configuration has none, and names log mel energies of the same number for a training that starts from it.
    """
    one, (system, parts, dim) = parts_of(toolkit, tensors)
    options = None if features is None else read_feature_options(features)
    if options is not None and options.dim != dim:
        raise InputError(f"takes {dim} values per frame (a ResNet: if its pooling is TSTP), {features} gives "
                         f"{options.dim}; name the options of its features with --features")
    config = network_config({"kind": "network", "features": f"fbank{dim}" if features is None else features.stem,
                             "feature_options": None if options is None else written_out(options),
                             "frontend": {"cmn": "chunk"}, "train": {"epochs": 1}, "speakers": 1, "feature_dim": dim,
                             **parts}, one.title)
    return system, config, weights_of(one, tensors, config)
