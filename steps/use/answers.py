"""What the page of utils/demo asks: embeddings, scores and speakers, as values for JSON. No recording is kept.

The page holds the embeddings between its questions, so that the server has no state but the store of enrolled speakers.
"""

import base64
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnet.attention import Attention, attention_of
from nnet.bundle import is_bundle, read_manifest
from nnet.embed import load
from steps.backend.interface import Enrolment
from steps.use.identify import answer, enrolment_of
from steps.use.quality import judge
from steps.use.scoring import Scoring
from steps.use.store import UNKNOWN, Speaker, Store, check_name, model_of, store_beside
from utils.audio import read_content
from utils.errors import InputError
from utils.features.spectrogram import BANDS, log_mel

SECONDS = 60.0  # of a recording, at most
COLUMNS = 400   # of a spectrogram that is sent, at most
LARGEST = 1e6   # value of an embedding; beyond, scores may overflow
HEADS = 64      # of attention that are sent, at most; where there are more, their mean alone


class Answers:
    """Answers questions with the model, chain and store of a bundle. Threads may share it; they take turns."""

    def __init__(self, folder: Path, device: str, chain: str, store: Path | None) -> None:
        self.model = load(folder, device)  # first: it makes sure that a bundle is unchanged
        self.model.require_features()
        self.scoring = Scoring.load(folder, chain)
        self.store = Store(store or store_beside(folder), model_of(folder))
        self.turn = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return what the page says of the model before any recording."""
        known, folder = self.scoring.calibration, self.model.folder
        system = read_manifest(folder)["system"] if is_bundle(folder) else folder.resolve().name
        return {"system": system, "rate": self.model.rate, "seconds": SECONDS,
                "chain": self.scoring.name, "words": str(self.scoring.chain.words),
                "calibration": None if known is None else known._replace(histogram=None)._asdict(),
                "histogram": known and known.histogram and known.histogram._asdict(),
                "speakers": self.names()}

    def names(self) -> list[str]:
        """Return the names of the enrolled speakers."""
        return sorted(path.stem for path in self.store.folder.glob("*.json"))

    def listen(self, content: bytes) -> dict[str, Any]:
        """Return a recording's embedding, with what is wrong with it, its spectrogram and its attention weights.

        Raises InputError for what is no audio, silent, too short or too long.
        """
        with self.turn:
            audio = read_content(io.BytesIO(content), "the recording", self.model.rate, SECONDS)
            quality = judge(audio, self.model.rate, "the recording")
            embedding = self.model.embed(audio.samples / 32768, rate=self.model.rate)
            attention = attention_of(self.model, audio.samples)
            energies = log_mel(audio.samples, self.model.rate)
        columns = places(len(energies))
        return {"embedding": embedding.astype(float).tolist(), "sound": round(quality.seconds, 2),
                "seconds": round(len(audio.samples) / self.model.rate, 2), "remarks": quality.remarks,
                "spectrogram": {"bands": BANDS, "columns": len(columns) - 1, "values": as_bytes(energies, columns)},
                "attention": attention and weights_of(attention)}

    def verify(self, first: Any, second: Any) -> dict[str, Any]:
        """Return the score and the log-likelihood ratio (None: not calibrated) of two embeddings."""
        vectors = np.stack([self._embedding(one) for one in (first, second)])
        with self.turn:
            score = float(self.scoring.scores(Enrolment(vectors[:1]), vectors[1:])[0, 0])
        return {"score": score, "ratio": self.scoring.calibration and float(self.scoring.ratios(score))}

    def enrol(self, name: Any, replace: Any, recordings: Any) -> dict[str, Any]:
        """Enrol a speaker; recordings: objects with `embedding` and `sound`, the seconds of sound."""
        if not isinstance(name, str) or not isinstance(recordings, list) or not 0 < len(recordings) <= 100:
            raise InputError("wanted a name, and 1 to 100 recordings")
        if check_name(name) in self.names() and replace is not True:
            raise InputError(f"{name} is enrolled already; use another name, or choose to replace")
        vectors = np.stack([self._embedding(one.get("embedding") if isinstance(one, dict) else None)
                            for one in recordings])
        seconds = tuple(_number(one.get("sound"), "sound") for one in recordings)
        files = tuple(f"recording {number}" for number in range(1, len(recordings) + 1))
        self.store.write(Speaker(name, self.store.model, files, seconds, vectors), replace is True)
        return {"name": name, "speakers": self.names()}

    def identify(self, embedding: Any, prior: Any) -> dict[str, Any]:
        """Return the most probable answer, with its probability, and the ratio of each speaker; prior: see identify."""
        vector = self._embedding(embedding)
        prior = _number(prior, "prior")
        if not 0 < prior < 1:
            raise InputError(f"prior is {prior:g}, wanted more than 0 and less than 1")
        with self.turn:
            speakers = self.store.read()
            scores = self.scoring.scores(enrolment_of(speakers), vector[None])[:, 0]
        ratios = self.scoring.ratios(scores)
        best, sure = answer(ratios, prior)
        return {"answer": speakers[best].name if best < len(speakers) else UNKNOWN, "known": best < len(speakers),
                "probability": sure, "speakers": [
                    {"name": speakers[place].name, "ratio": float(ratios[place]), "score": float(scores[place])}
                    for place in np.argsort(-ratios)[:10]]}

    def _embedding(self, value: Any) -> np.ndarray:
        """Return an embedding (E) that the page sends back; raises InputError for anything else."""
        try:
            vector = np.array(value, np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError("an embedding that is not a list of numbers; load the page again") from error
        if vector.shape != (self.model.dim,) or not 0 < np.abs(vector).max() < LARGEST:  # also NaN
            raise InputError(f"an embedding of shape {list(vector.shape)}, or out of range, wanted {self.model.dim} "
                             "numbers; load the page again")
        return vector


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{name} is {value!r:.40}, wanted a number")
    return float(value)


def places(length: int) -> np.ndarray:
    """Return where the columns of a picture of `length` frames begin, and the end of the last: up to COLUMNS + 1."""
    return np.linspace(0, length, min(length, COLUMNS) + 1).round().astype(int)


def as_bytes(energies: np.ndarray, columns: np.ndarray) -> str:
    """Return T x F energies as a picture, a byte per column and band, in base64; the range leaves out extremes."""
    means = np.add.reduceat(energies, columns[:-1]) / np.diff(columns)[:, None]
    low, high = np.percentile(energies, (2, 99.5))
    scaled = np.clip(255 * (means - low) / max(high - low, 1e-3), 0, 255)
    return base64.b64encode(scaled.round().astype(np.uint8).tobytes()).decode()


def weights_of(attention: Attention) -> dict[str, Any]:
    """Return weights times T' per column of the picture: the mean over the heads, and each of a moderate number."""
    over_time = attention.over_time()
    columns = places(len(over_time))
    means = np.add.reduceat(over_time, columns[:-1]) / np.diff(columns)[:, None]

    def rounded(values: Sequence[float]) -> list[float]:
        return [round(float(value), 3) for value in values]

    return {"heads": attention.heads, "mean": rounded(means.mean(axis=1)),
            "each": [rounded(head) for head in means.T] if 1 < attention.heads <= HEADS else []}
