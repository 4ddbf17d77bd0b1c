"""Export a network to ONNX, for onnxruntime: one input, batch x length, both dynamic, and one output, B x E embeddings.

--with-features: the input `samples` is audio, B x N samples at the model's rate, 1 at full scale; all utterances of
a batch have the same length. Otherwise the input `features` is B x T x F stored features, before deltas and
normalisation, as kaldi-native-fbank or sherpa-onnx compute them.
The metadata hold the rate, the feature options, the training mean, and what sherpa-onnx reads; sherpa-onnx itself
computes 80 log mel energies only (conf/features/fbank80.conf).
The export fails unless onnxruntime gives the embeddings that PyTorch gives, from the shortest input to a minute.
--int8 LIST: afterwards, round the weights to 8 bits, and print the change of the EER on a list of a data directory,
<data>/trials/<list>, with the default back-end of the model; judge by it whether the file is of use.
e.g.: utils/export_onnx --with-features xvector_bundle xvector.onnx
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from local.simulated_voice import RATE, draw_speaker, utter
from nnet.bundle import is_bundle, read_manifest
from nnet.embed import Model, load, load_network
from nnet.frontends.kaldi import frontend_of_batch
from nnet.model import Network
from steps.use.quantise import error_rates, quantise, read_list
from steps.use.scoring import Scoring
from utils.audio import read_samples
from utils.errors import InputError, run_main
from utils.features.compute import compute_features
from utils.files import write_aside

NEEDED = ("onnx", "onnxscript", "onnxruntime")
REQUIREMENTS = "utils/requirements_onnx.txt"
AGREEMENT = 0.9999  # the lowest cosine of an embedding of onnxruntime with PyTorch's
MINUTE = 60.0
LONGEST = 100_000_000  # of an input: beyond any memory
SECONDS = (0.5, 1.0, 3.33, 10.0, MINUTE)  # of inputs that are compared, besides the shortest


class Graph(nn.Module):
    """What is exported: B x N samples (1 at full scale), or B x T x F stored features, in; B x E embeddings out."""

    def __init__(self, network: Network, with_features: bool) -> None:
        super().__init__()
        self.network, self.with_features = network, with_features

    def forward(self, x: Tensor) -> Tensor:
        frontend = self.network.frontend
        if not frontend.stored:
            return self.network.embed(x * 32768)
        if self.with_features:
            x = frontend.features(x * 32768)
        return self.network.embed_features(frontend_of_batch(x, frontend.options))


def require_packages() -> None:
    """Raise InputError unless the packages for ONNX are installed: the rest of the repository does without."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed; install what export needs: python3 -m pip install -r "
                         f"{REQUIREMENTS}")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hide what the exporter says on its progress: remarks on PyTorch's own code."""
    with (contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
          warnings.catch_warnings(action="ignore")):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def to_onnx(graph: nn.Module, name: str, shape: tuple[int, ...], shortest: int) -> Any:
    """Return the ONNX program; shape: of an example input; shortest: the least length. Raises InputError."""
    try:
        with quietly(), torch.inference_mode():
            return torch.onnx.export(traced(graph, shape, shortest), dynamo=True, verbose=False, input_names=[name],
                                     output_names=["embedding"])
    except Exception as error:  # the exporter documents no types
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("-", "#"))]
        raise InputError(f"PyTorch {torch.__version__} cannot export this network: {' '.join(lines)[:300]}") from error


def traced(graph: nn.Module, shape: tuple[int, ...], shortest: int) -> torch.export.ExportedProgram:
    """Return the graph for any batch and length."""
    def trace(length: Any) -> torch.export.ExportedProgram:
        return torch.export.export(graph, (torch.zeros(shape),), strict=False,
                                   dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC, 1: length}})

    axis = {"min": shortest, "max": LONGEST}
    try:  # layers that cut off frames must know that some remain
        return trace(torch.export.Dim("length", **axis))
    except Exception:  # layers with strides add conditions to a length, which a named one refuses
        return trace(torch.export.Dim.DYNAMIC(**axis))


def metadata_of(model: Model, with_features: bool) -> dict[str, str]:
    """Return the file's metadata; the first names are those that sherpa-onnx reads."""
    manifest = read_manifest(model.folder) if is_bundle(model.folder) else {}
    # "wespeaker" is sherpa-onnx's name of models that take features of samples on the 16-bit scale.
    found = {"framework": "attvec" if with_features else "wespeaker", "language": "unknown",
             "url": "none", "comment": "attention-pooled speaker embeddings", "sample_rate": str(model.rate),
             "output_dim": str(model.dim), "normalize_samples": "0", "feature_normalize_type": "",
             "licence": str(manifest.get("licence", "not stated")),
             "input": "samples, 1 at full scale" if with_features else "features of samples on the 16-bit scale",
             "features": json.dumps(model.kept_features)}
    with contextlib.suppress(InputError):  # without a back-end there is no mean
        found["training_mean"] = json.dumps([float(f"{value:.7g}") for value in model.mean.tolist()])
    return found


def inputs_of(model: Model, with_features: bool, shortest: int) -> Iterator[np.ndarray]:
    """Yield inputs of the graph, one utterance each, from the shortest to a minute: parts of a simulated voice."""
    generator = np.random.default_rng(2)
    voice = 0.05 * utter(draw_speaker(generator, "m"), MINUTE, generator)
    samples = read_samples(voice.astype(np.float32), RATE, model.rate).samples
    whole = samples / 32768 if with_features else compute_features(samples, model.features)
    per_second = model.rate if with_features else model.rate / model.features.shift
    for length in (shortest, shortest + 1, *(round(seconds * per_second) for seconds in SECONDS)):
        if length >= shortest:
            yield whole[:length].astype(np.float32)


def compare(model: Model, path: Path, with_features: bool, shortest: int) -> float:
    """Return the lowest cosine between embeddings of onnxruntime and of the model, which reads audio as always."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, lowest = session.get_inputs()[0].name, 1.0
    for x in inputs_of(model, with_features, shortest):
        wanted = model.embed(x, rate=model.rate) if with_features else model.embed_features(x)
        for batch in (1, 2):
            for found in session.run(None, {name: np.stack([x] * batch)})[0]:
                if not np.isfinite(found).all() or found.shape != wanted.shape:
                    return -1.0
                lowest = min(lowest, float(found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)))
    return lowest


def shortest_input(network: Network, with_features: bool) -> int:
    """Return the least number of samples or frames that the graph takes."""
    frames = max(network.encoder.receptive_field, 2)  # torch.export takes lengths from 2
    return network.frontend.samples_of(frames) if with_features else frames


def export(folder: Path, out: Path, with_features: bool, int8: Path | None = None) -> str:
    """Write the file and return what is known of it; raises InputError, and writes nothing, if it cannot be right.

    int8: the list for the error rates of weights of 8 bits; None: no such weights.
    """
    if (folder / "final.ie").is_file():
        raise InputError(f"{folder}: an i-vector system; only networks can be exported to ONNX")
    model = load(folder)
    model.require_features()
    network, config = load_network(folder)
    if config.vad:
        raise InputError(f"{folder}: the network skips frames without voice, which a graph of fixed batches cannot do; "
                         "export a network without frontend: vad")
    on_list = (Scoring.load(folder), read_list(int8)) if int8 else ()  # first: the export takes a while
    with_features = with_features or not network.frontend.stored
    shortest = shortest_input(network, with_features)
    name = "samples" if with_features else "features"
    shape = (2, 4 * shortest, *([] if with_features else [model.features.dim]))
    program = to_onnx(Graph(network, with_features).eval(), name, shape, shortest)
    program.model.metadata_props.update(metadata_of(model, with_features))
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "float32.onnx"
        program.save(path)
        lowest = compare(model, path, with_features, shortest)
        if not lowest > AGREEMENT:
            raise InputError(f"{out}: not written: an embedding of onnxruntime has the cosine {lowest:.6f} with "
                             f"PyTorch's, wanted more than {AGREEMENT}; try another version of onnxruntime")
        said = f"onnxruntime and PyTorch agree, lowest cosine {lowest:.6f}"
        if int8:
            whole, path = path, path.with_name("int8.onnx")
            quantise(whole, path)
            before, after = error_rates(model, *on_list, with_features, whole, path)
            said += (f"; weights of 8 bits, {whole.stat().st_size / 1e6:.1f} MB before; EER on {int8.name} "
                     f"{before:.3f} % before, {after:.3f} % after, change {after - before:+.3f}")
        with write_aside(out, "wb") as stream:
            stream.write(path.read_bytes())
    return said


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/export_onnx", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--with-features", action="store_true", help="take audio instead of features")
    parser.add_argument("--int8", type=Path, metavar="LIST", help="weights of 8 bits, tried on this trial list")
    parser.add_argument("bundle", type=Path, help="bundle, or folder of a trained network")
    parser.add_argument("out", type=Path, help="x.onnx")
    arguments = parser.parse_args()
    require_packages()
    if arguments.out.suffix != ".onnx":
        raise InputError(f"{arguments.out}: wanted a name that ends in .onnx")
    said = export(arguments.bundle, arguments.out, arguments.with_features, arguments.int8)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB; {said}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
