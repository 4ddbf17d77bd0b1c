"""Weights of 8 bits for exported networks, and the error rates that they give on a list."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnet.embed import Model
from steps.backend.interface import Enrolment
from steps.use.scoring import Scoring
from utils.audio import read_audio
from utils.errors import InputError
from utils.features.compute import compute_features
from utils.kaldi.ark import read_table
from utils.kaldi.trials import row_blocks
from utils.metrics import measure
from utils.progress import progress

PRODUCTS = ["Conv", "MatMul", "Gemm"]


def quantise(path: Path, out: Path) -> None:
    """Write an ONNX file with weights of 8 bits and products of whole numbers; the front end stays as it is.

    The weights are rounded once, and the frames of each input by their own range: no data are needed. Raises InputError
    if there is nothing to quantise.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path).graph
    weights = {one.name for one in graph.initializer}
    products = [node for node in graph.node if node.op_type in PRODUCTS and weights & set(node.input)]
    # Features span many powers of ten, and would be lost: their part of the graph is named after the front end.
    kept = [node.name for node in products if any("network.frontend" in one.value for one in node.metadata_props)]
    if len(kept) == len(products):
        raise InputError(f"{path.name}: no product with weights to quantise")
    logging.disable(logging.WARNING)  # it advises a step that the exporter has done
    try:
        # Not of int8: onnxruntime has no convolution of uint8 frames with int8 weights on all machines.
        quantize_dynamic(path, out, op_types_to_quantize=PRODUCTS, nodes_to_exclude=kept,
                         weight_type=QuantType.QUInt8)
    finally:
        logging.disable(logging.NOTSET)


class List(NamedTuple):
    """A trial list: its recordings, and for each trial the rows of both in `paths` and whether it is a target."""

    paths: list[str]
    first: np.ndarray
    second: np.ndarray
    is_target: np.ndarray


def read_list(trials: Path) -> List:
    """Read a list of a data directory, <data>/trials/<list>, with the recordings of <data>/wav.scp that it names."""
    ids, paths = read_table(trials.absolute().parent.parent / "wav.scp")
    first, second, is_target = (np.concatenate(parts) for parts in zip(*row_blocks(trials, ids), strict=True))
    used, rows = np.unique(np.concatenate([first, second]), return_inverse=True)
    return List([paths[row] for row in used], *np.split(rows, 2), is_target)


def embeddings(path: Path, dim: int, inputs: Iterable[np.ndarray]) -> np.ndarray:
    """Return the embeddings (N x E) that onnxruntime computes of N inputs; raises InputError if one is not finite."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])
    if found.shape[1] != dim or not np.isfinite(found).all():
        raise InputError(f"{path.name}: embeddings that are not finite, or not of {dim} values; try another "
                         "version of onnxruntime")
    return found


def inputs_of(model: Model, with_features: bool) -> Callable[[str], np.ndarray]:
    """Return what makes the graph's input, without its batch, of a recording."""
    def of(path: str) -> np.ndarray:
        samples = read_audio(path, model.rate).samples
        return samples / np.float32(32768) if with_features else compute_features(samples, model.features)

    return of


def error_rates(model: Model, scoring: Scoring, chosen: List, with_features: bool, *graphs: Path) -> list[float]:
    """Return the EER (%) of each graph on a list, with a chain of the model's back-end."""
    found, of = [], inputs_of(model, with_features)
    for graph in graphs:
        inputs = progress(map(of, chosen.paths), len(chosen.paths), f"embed {graph.stem}", "files")
        x = embeddings(graph, model.dim, inputs)
        scores = scoring.chain.scorer(Enrolment(x), x).scores(chosen.first, chosen.second)
        found.append(measure(scores[chosen.is_target], scores[~chosen.is_target]).eer)
    return found
