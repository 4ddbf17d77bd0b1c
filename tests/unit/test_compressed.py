"""Compressed matrices: Kaldi's bytes, and the largest error of each method."""

import io

import numpy as np
import pytest

from utils.errors import InputError
from utils.kaldi.ark import ArkWriter, iterate
from utils.kaldi.compressed import Header, decode, encode
from utils.kaldi.objects import KaldiReader


def stored(matrix, method):
    return KaldiReader(io.BytesIO(b"\0B" + encode(matrix, method)), "compressed").matrix()


@pytest.mark.parametrize("method", [1, 2, 3, 4, 5])
def test_bytes_are_kaldis(shared, tmp_path, method):
    folder = shared / "kaldi_reference/features"
    with ArkWriter(tmp_path / "ours", method) as writer:
        for name, features in iterate(folder / "mfcc24.ark"):
            writer.write(name, features)
    assert (tmp_path / "ours.ark").read_bytes() == (folder / f"mfcc24_compressed{method}.ark").read_bytes()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 300])
def test_error_is_within_the_step(rows):
    matrix = np.random.default_rng(1).normal(5, 20, (rows, 7)).astype(np.float32)
    span = matrix.max() - matrix.min()
    assert np.abs(stored(matrix, 3) - matrix).max() <= 0.51 * span / 65535 + 1e-4
    assert np.abs(stored(matrix, 5) - matrix).max() <= 0.51 * span / 255
    points = np.sort(matrix, axis=0)[[0, rows // 4, 3 * (rows // 4), rows - 1]]
    widest = np.diff(points, axis=0).max() if rows >= 5 else span
    assert np.abs(stored(matrix, 2) - matrix).max() <= 0.51 * widest / 63 + span / 65535
    integers = np.round(matrix)
    assert np.array_equal(stored(integers, 4), integers)
    assert np.array_equal(stored(np.abs(integers).clip(0, 255), 6), np.abs(integers).clip(0, 255))
    assert np.abs(stored(np.abs(matrix) % 1, 7) - np.abs(matrix) % 1).max() <= 0.51 / 255


@pytest.mark.parametrize("method", range(1, 8))
def test_constant_empty_and_unfit_matrices(method):
    assert stored(np.zeros((0, 0), np.float32), method).shape == (0, 0)
    ones = np.ones((12, 3), np.float32)
    assert np.allclose(stored(ones, method), ones, atol=1e-4)
    ones[3, 1] = np.nan
    with pytest.raises(InputError, match="12 x 3 has NaN"):
        encode(ones, method)


def test_a_constant_matrix_gets_kaldis_range():
    header = encode(np.full((10, 2), -3, np.float32), 5)[4:12]
    assert np.frombuffer(header, "<f4").tolist() == [-3, 4]  # minimum, 1 + |minimum|


def test_a_column_at_the_top_of_the_range():
    """Its four points still increase, within 16 bits."""
    matrix = np.zeros((20, 2), np.float32)
    matrix[:, 1] = 1000
    points = np.frombuffer(encode(matrix, 2)[19:35], "<u2").reshape(2, 4)
    assert points.tolist() == [[0, 1, 2, 3], [65532, 65533, 65534, 65535]]
    assert np.abs(stored(matrix, 2) - matrix).max() <= 3 * 1000 / 65535 + 1e-3


@pytest.mark.parametrize(("kind", "codes"), [
    ("CM", np.array([0, 1, 32768, 65535], "<u2")), ("CM2", np.array([0, 65535, 32768], "<u2")),
    ("CM3", np.uint8([0, 255, 128]))])
def test_a_range_near_the_largest_float_does_not_overflow(kind, codes):
    """Where range * code would, as in kaldiio."""
    content = codes.tobytes() + (bytes([0, 255, 192]) if kind == "CM" else b"")
    found = decode(Header(kind, np.float32(0), np.float32(3e38), 3, 1), content)
    np.testing.assert_allclose(found[:, 0], [0, 3e38, 1.5e38], rtol=5e-3)
