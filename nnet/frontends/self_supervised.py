"""Self-supervised models as front ends: WavLM, HuBERT, wav2vec 2.0 and w2v-BERT 2.0, by the transformers library.

The folder of a model is one that `save_pretrained` of that library has written, or that its hub offers for download;
nothing is downloaded here. It is read where training starts. A trained network holds the weights, and its config.yaml
the architecture, so that it needs the folder no more.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nnet.frontends.interface import Frontend
from nnet.frontends.kaldi import KaldiFeatures
from utils.config import NotNegative
from utils.errors import InputError
from utils.features.model_features import Options
from utils.features.options import as_written_out

RATE = 16000
W2V_BERT = "wav2vec2-bert"  # it takes log mel energies, the others samples
FBANK = {"feature-type": "fbank", "sample-frequency": 16000.0, "frame-length": 25.0, "frame-shift": 10.0,
         "preemphasis-coefficient": 0.97, "remove-dc-offset": True, "window-type": "povey",
         "round-to-power-of-two": True, "snip-edges": True, "num-mel-bins": 80, "low-freq": 20.0, "high-freq": 8000.0,
         "use-energy": False, "htk-compat": False, "use-log-fbank": True, "use-power": True}
STACKED = 2  # of its frames make one
# What a model does to its input or its layers in its own training.
UNCHANGED = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}


@dataclass(frozen=True)
class SelfSupervisedOptions:
    """Which model to use, which of its layers a frame holds, and how fast the model learns."""

    type: str
    model: str                                   # its folder
    layers: Literal["weighted", "all"] = "weighted"  # their mean, with learned weights; or all, side by side
    rate: NotNegative = 0.0                      # of the model's learning, as a factor of optimizer.lr; 0: it is frozen
    architecture: dict[str, Any] | None = None   # read from the folder
    normalise: bool | None = None                # read from the folder: whether samples get mean 0 and variance 1

    def __post_init__(self) -> None:
        if self.architecture is None:
            folder = Path(self.model)
            architecture = _read(folder / "config.json")
            if not isinstance(architecture.get("model_type"), str):
                raise ValueError(f"model: {folder}/config.json names no model_type; name a folder that the "
                                 "transformers library has written")
            prepared = folder / "preprocessor_config.json"
            object.__setattr__(self, "architecture", architecture)
            object.__setattr__(self, "normalise", prepared.is_file() and bool(_read(prepared).get("do_normalize")))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise ValueError(f"model: {path}: {reason}; name a folder that the transformers library has written") from error
    if not isinstance(found, dict):
        raise ValueError(f"model: {path}: not a mapping; name a folder that the transformers library has written")
    return found


class SelfSupervised(Frontend):
    """B x N samples to B x T x D, or B x T x (L D) with `layers: all`; L counts the input of the first layer, too.

    Raises InputError if the library is missing, or does not know the model.
    """

    rate = RATE

    def __init__(self, options: SelfSupervisedOptions, of_data: Options, feature_dim: int) -> None:
        super().__init__()
        self.options, self.slow_rate = options, options.rate
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise InputError("frontend: type self_supervised needs the transformers library: python3 -m pip install "
                             "-r utils/requirements_ssl.txt") from error
        architecture = dict(options.architecture) | UNCHANGED
        kind = architecture.pop("model_type")
        try:
            config = AutoConfig.for_model(kind, **architecture)
            self.model = AutoModel.from_config(config).float()  # whatever the precision of the saved weights
        except (ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"frontend: model: {options.model}: the transformers library cannot make it: {reason}"
                             ) from error
        self.features = KaldiFeatures(as_written_out(FBANK, "w2v-BERT")) if kind == W2V_BERT else None
        if self.features is not None:
            self.shift, self.length = STACKED * self.features.shift, self.features.options.samples_of(STACKED)
        elif self.model.main_input_name == "input_values" and hasattr(config, "conv_stride"):
            self.shift, self.length = 1, 1
            for size, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
                self.length += (size - 1) * self.shift
                self.shift *= stride
        else:
            raise InputError(f"frontend: model: {options.model}: {kind} does not take audio; wanted WavLM, HuBERT, "
                             "wav2vec 2.0 or w2v-BERT 2.0")
        count = config.num_hidden_layers + 1
        self.layer_weights = nn.Parameter(torch.zeros(count)) if options.layers == "weighted" else None
        self.output_dim = config.hidden_size * (1 if options.layers == "weighted" else count)
        self.requires_grad_(True)

    def initialise(self) -> None:
        """Load the model's weights from its folder; raises InputError if some are missing there."""
        from transformers import AutoModel
        from transformers.utils import logging

        logging.set_verbosity_error()  # missing weights are an error below
        logging.disable_progress_bar()
        try:
            loaded, found = AutoModel.from_pretrained(self.options.model, config=self.model.config, dtype=torch.float32,
                                                      local_files_only=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"frontend: model: {self.options.model}: its weights cannot be read: {reason}") from error
        if missing := sorted(found["missing_keys"]):
            raise InputError(f"frontend: model: {self.options.model}: no weights for {len(missing)} tensors, such as "
                             f"{missing[0]}; download the model again")
        self.model.load_state_dict(loaded.state_dict())

    def slow_parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    def requires_grad_(self, requires_grad: bool = True) -> "SelfSupervised":
        super().requires_grad_(requires_grad)
        self.model.requires_grad_(requires_grad and self.slow_rate > 0)
        return self

    def train(self, mode: bool = True) -> "SelfSupervised":
        super().train(mode)
        self.model.train(mode and self.slow_rate > 0)
        return self

    def samples_of(self, frames: int) -> int:
        return (frames - 1) * self.shift + self.length

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the frames of each utterance on its own: models that normalise over time would see the padding."""
        ends = [samples.shape[1]] * len(samples) if lengths is None else lengths.tolist()
        found = [self.chunks(x[None, :end])[0] for x, end in zip(samples, ends, strict=True)]
        return pad_sequence(found, batch_first=True), torch.tensor([len(x) for x in found], device=samples.device)

    def chunks(self, samples: Tensor) -> Tensor:
        if samples.shape[1] < self.length:
            raise InputError(f"{samples.shape[1]} samples are too short for one frame of the front end, {self.length}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.slow_rate > 0):
            layers = self.model(self._input(samples), output_hidden_states=True).hidden_states
        if self.layer_weights is None:
            return torch.cat(layers, dim=2)
        return torch.stack(layers, dim=3).float() @ self.layer_weights.softmax(dim=0)

    def _input(self, samples: Tensor) -> Tensor:
        """Return what the model takes of samples on the 16-bit scale."""
        if self.features is None:
            x = samples / 32768
            if self.options.normalise:
                x = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, keepdim=True, correction=0) + 1e-7).sqrt()
            return x
        x = self.features(samples)
        x = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, keepdim=True) + 1e-7).sqrt()
        return x[:, :x.shape[1] // STACKED * STACKED].unflatten(1, (-1, STACKED)).flatten(2)
