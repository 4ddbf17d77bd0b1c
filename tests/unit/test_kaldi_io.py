"""Kaldi's objects: bytes and text as Kaldi writes them; damaged files are refused."""

import io
import struct

import numpy as np
import pytest

from utils.errors import InputError
from utils.kaldi.ark import read_array
from utils.kaldi.objects import KaldiReader, KaldiWriter, read_matrix, read_vector, write_matrix, write_vector

MATRIX = np.array([[1, 2.5, -3e-7], [4, 1e10, 0.1]], np.float32)


def written(write, binary=True):
    stream = io.BytesIO()
    write(KaldiWriter(stream, binary))
    return stream.getvalue()


def reader(content):
    return KaldiReader(io.BytesIO(content), "file")


def test_binary_layout():
    assert written(lambda kaldi: kaldi.vector(np.array([1, 2], np.float32))) == (
        b"\0BFV \4" + struct.pack("<iff", 2, 1, 2))
    assert written(lambda kaldi: kaldi.matrix(np.array([[1.0, 2.0]]))) == (
        b"\0BDM \4" + struct.pack("<ibi", 1, 4, 2) + struct.pack("<dd", 1, 2))
    assert written(lambda kaldi: kaldi.packed(np.array([[1, 9], [2, 3]], np.float32))) == (
        b"\0BFP \4" + struct.pack("<i", 2) + struct.pack("<fff", 1, 2, 3))
    assert written(lambda kaldi: kaldi.int32_vector([5, -1])) == b"\0B\4" + struct.pack("<iii", 2, 5, -1)


def test_text_layout():
    assert written(lambda kaldi: kaldi.matrix(MATRIX), False) == b" [\n  1 2.5 -3e-07 \n  4 1e+10 0.1 ]\n"
    assert written(lambda kaldi: kaldi.vector(MATRIX[0]), False) == b" [ 1 2.5 -3e-07 ]\n"
    assert written(lambda kaldi: kaldi.matrix(np.zeros((0, 0))), False) == b" [ ]\n"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_comes_back(binary, dtype):
    matrix = MATRIX.astype(dtype)
    square = (matrix[:, :2] @ matrix[:, :2].T).astype(dtype)
    tall = np.arange(200_000, dtype=dtype).reshape(-1, 2)  # text of several blocks

    def write(kaldi):
        kaldi.token("<Thing>")
        kaldi.int32(-7)
        kaldi.float32(0.5)
        kaldi.boolean(True)
        kaldi.boolean(False)
        kaldi.float64(0.25)
        for vector in (matrix[0], matrix[0, :0]):
            kaldi.vector(vector)
        for item in (matrix, tall, matrix[:0, :0]):
            kaldi.matrix(item)
        kaldi.packed(square)
        kaldi.int32_vector([3, 1])
        kaldi.int32_vector([])
        kaldi.token("</Thing>")

    kaldi = reader(written(write, binary))
    assert kaldi.binary == binary
    assert kaldi.expect("<Other>", "<Thing>") == "<Thing>"
    assert kaldi.int32() == -7
    assert kaldi.real() == 0.5
    assert kaldi.boolean()
    assert not kaldi.boolean()
    assert kaldi.real() == 0.25
    close = {"rtol": 0 if binary else 1e-6}
    for vector in (matrix[0], matrix[0, :0]):
        found = kaldi.vector()
        assert found.dtype == (dtype if binary else np.float64)
        np.testing.assert_allclose(found, vector, **close)
    for item in (matrix, tall, matrix[:0, :0]):
        np.testing.assert_allclose(kaldi.matrix(), item, **close)
    np.testing.assert_allclose(kaldi.packed(), square, **close)
    assert kaldi.int32_vector().tolist() == [3, 1]
    assert kaldi.int32_vector().tolist() == []
    kaldi.expect("</Thing>")
    assert kaldi.at_end()


def test_array_tells_vectors_from_matrices():
    for binary in (True, False):
        assert read_array(reader(written(lambda kaldi: kaldi.vector(MATRIX[0]), binary))).shape == (3,)
        assert read_array(reader(written(lambda kaldi: kaldi.matrix(MATRIX[:1]), binary))).shape == (1, 3)


def test_files_of_one_object(tmp_path):
    for binary in (True, False):
        write_matrix(tmp_path / "m", MATRIX.astype(np.float64), binary)
        np.testing.assert_allclose(read_matrix(tmp_path / "m"), MATRIX, rtol=1e-6)
        assert read_matrix(tmp_path / "m", np.float32).dtype == np.float32
        write_vector(tmp_path / "v", MATRIX[0], binary)
        np.testing.assert_allclose(read_vector(tmp_path / "v"), MATRIX[0], rtol=1e-6)


def test_kaldis_own_bytes_and_text(shared):
    """An object that Kaldi wrote in binary and in text (the PLDA model) is read alike from both."""
    folder = shared / "kaldi_reference/backend"
    with open(folder / "plda", "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<Plda>")
        parts = kaldi.vector(), kaldi.matrix(), kaldi.vector()
        kaldi.expect("</Plda>")
        assert kaldi.at_end()
    assert parts[1].dtype == np.float64

    def write(kaldi):
        kaldi.token("<Plda>")
        kaldi.vector(parts[0])
        kaldi.matrix(parts[1])
        kaldi.vector(parts[2])
        kaldi.token("</Plda>")

    assert written(write) == (folder / "plda").read_bytes()
    assert written(write, False) == (folder / "plda.txt").read_bytes()
    transform = read_matrix(folder / "lda.mat")
    assert written(lambda kaldi: kaldi.matrix(transform)) == (folder / "lda.mat").read_bytes()


@pytest.mark.parametrize(("content", "message"), [
    (b"\0BFM \4\xff\xff\xff\x7f\4\xff\xff\xff\x7f", "truncated or damaged"),   # 2^62 values: no allocation
    (b"\0BFM \4\xff\xff\xff\xff\4\1\0\0\0", "negative size -1"),
    (b"\0BFM \4\2\0\0\0\4\2\0\0\0abc", "16 bytes expected, 3 left"),
    (b"\0BFM \7\2\0\0\0", "found size 7"),
    (b"\0BCM2 " + struct.pack("<ffii", 0, 1, 1000, 1000), "2000000 bytes expected, 0 left"),
    (b"\0BCM3 " + struct.pack("<ffii", 0, 1, -1, 5), "matrix of -1 x 5"),
    (b"\0BXY \4", "expected FM or DM or CM or CM2 or CM3, found 'XY'"),
    (b"\0B" + b"x" * 5000, "more than 1,000 bytes"),
    (b"\0B", "found the end"),
    (b" [ 1 2\n 3 ]\n", "rows of 1 and 2 values"),
    (b" [ 1 two ]\n", "expected numbers"),
    (b" [ 1 1_0 ]\n", "expected numbers, found b'1 1_0'"),
    (b"\0BFM\n\4\1\0\0\0\4\1\0\0\0abcd", "expected a space after FM, found b'\\n'"),
    (b" [ 1 2 3", "no ] for the ["),
    (b"<Plda> ", "expected [, found b'<Plda> '"),
])
def test_damage_is_one_clear_error(content, message):
    with pytest.raises(InputError, match=r"^file: at byte \d+: ") as error:
        reader(content).matrix()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "method"), [
    (b"\0B\4\1\0", "int32"), (b"x", "int32"), (b"4294967296", "int32"), (b"1_0", "int32"), (b"\x1c1", "int32"),
    (b"\0B\2\1\0", "real"), (b"one", "real"), (b"\0BX", "boolean"), (b"yes", "boolean"),
    (b"\0B\4\xff\xff\xff\x7f", "int32_vector"), (b"[ 1.5 ]", "int32_vector"),
    (b"[ 1 2\n3 ]", "vector"), (b"[ 1\r2 ]", "vector"),
    (b"[ 1 2 ]", "packed"), (b"\0BFP \4\xff\xff\0\0", "packed"), (b"\0BFV \4\xff\xff\0\0", "vector"), (b"", "token"),
])
def test_damaged_primitives(content, method):
    with pytest.raises(InputError, match="^file: at byte "):
        getattr(reader(content), method)()


def test_words_end_at_all_white_space():
    """As in Kaldi, where a vertical tab can be no id."""
    kaldi = reader(b"\v one\ftwo\v\n")
    assert [kaldi.token(), kaldi.token(), kaldi.at_end()] == ["one", "two", True]


def test_writer_refuses_wrong_dimensions():
    with pytest.raises(ValueError, match="2 dimensions"):
        written(lambda kaldi: kaldi.matrix(MATRIX[0]))
