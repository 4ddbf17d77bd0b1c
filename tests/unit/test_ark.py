"""Tables: scripts, archives, row ranges, and random access to rows."""

import io
import os
import pickle
import struct

import kaldiio
import numpy as np
import pytest

from utils.errors import InputError
from utils.kaldi.ark import ArkWriter, RowReader, iterate, parse_location, read_matrix, read_table, read_vectors
from utils.kaldi.compressed import encode
from utils.kaldi.objects import KaldiWriter

METHODS = [0, 1, 2, 3, 5]


@pytest.fixture
def matrices():
    rng = np.random.default_rng(2)
    return {f"id{i:02d}-a": rng.normal(0, 10, (rng.integers(9, 90), 6)).astype(np.float32) for i in range(12)}


def write(stem, items, **options):
    with ArkWriter(stem, **options) as writer:
        for name, item in items.items():
            writer.write(name, item)
    return f"{stem}.scp"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written_is_read_also_by_kaldiio(tmp_path, matrices, method):
    scp = write(tmp_path / "with space" / "feats.1", matrices, compression=method)
    found = dict(iterate(scp))
    assert list(found) == list(matrices)
    for name, theirs in kaldiio.load_ark(scp.replace(".scp", ".ark")):
        np.testing.assert_allclose(found[name], theirs, atol=1e-5)
    atol = {0: 0, 3: 1e-3}.get(method, 0.5)
    for name, place in zip(*read_table(scp), strict=True):
        np.testing.assert_allclose(read_matrix(place), matrices[name], atol=atol)
        assert np.array_equal(read_matrix(place), found[name])
    for (name, features), other in zip(iterate(scp.replace(".scp", ".ark")), found, strict=True):
        assert name == other
        assert np.array_equal(features, found[name])


def test_text_archives_and_parts(tmp_path, matrices):
    scp = write(tmp_path / "text", matrices, binary=False)
    assert (tmp_path / "text.ark").read_text().startswith("id00-a  [\n  ")
    for path in (scp, tmp_path / "text.ark"):
        found = dict(iterate(path, part=slice(3, 7)))
        assert list(found) == list(matrices)[3:7]
        for name, features in found.items():
            np.testing.assert_allclose(features, matrices[name], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_a_script(tmp_path, matrices, method):
    """A row range, upper end included, and RowReader give the same rows as the whole matrix."""
    scp = write(tmp_path / "feats", matrices, compression=method)
    ids, places = read_table(scp)
    whole = dict(iterate(scp))
    ranged = tmp_path / "ranged.scp"
    ranged.write_text("".join(f"{name} {place}[2:7]\n" for name, place in zip(ids, places, strict=True)))
    for name, features in iterate(ranged):
        assert np.array_equal(features, whole[name][2:8])
    rows = RowReader(scp)
    assert list(rows.ids) == ids
    assert rows.ids[-1] == ids[-1]
    assert rows.num_rows.tolist() == [len(features) for features in matrices.values()]
    part = pickle.loads(pickle.dumps(RowReader(ranged)))  # noqa: S301 - as worker processes receive it
    assert set(part.num_rows) == {6}
    for index, name in enumerate(ids):
        assert np.array_equal(rows.read(index), whole[name])
        assert np.array_equal(rows.read(index, 1, 8), whole[name][1:8])
        assert rows.read(index, 3, 3).shape == (0, 6)
        assert np.array_equal(part.read(index, 1, 5), whole[name][3:7])
        with pytest.raises(InputError, match=f"{name} has 6 rows; 0 to 7 requested"):
            part.read(index, 0, 7)
    with pytest.raises(IndexError):
        rows.ids[len(ids)]


def test_kaldiio_reads_and_writes_what_is_plain(tmp_path, matrices, monkeypatch):
    """Matrices and vectors, float and double, with Kaldi's bytes; nothing else reaches kaldiio."""
    calls = []
    for name in ("read_matrix_or_vector", "write_array"):
        theirs = getattr(kaldiio.matio, name)
        monkeypatch.setattr(f"utils.kaldi.ark.{name}",
                            lambda *args, name=name, theirs=theirs: calls.append(name) or theirs(*args))
    scp = write(tmp_path / "m", matrices)
    stream = io.BytesIO()
    for name, matrix in matrices.items():
        stream.write(f"{name} ".encode())
        KaldiWriter(stream).matrix(matrix)
    assert (tmp_path / "m.ark").read_bytes() == stream.getvalue()
    for path in (scp, tmp_path / "m.ark", write(tmp_path / "v", {"a": np.ones(3)})):
        for _, values in iterate(path):
            assert values.dtype == np.float32 and values.flags.writeable
    assert calls == ["write_array"] * 12 + ["write_array"] + ["read_matrix_or_vector"] * 25
    for options in ({"compression": 3}, {"binary": False}):
        list(iterate(write(tmp_path / "m", matrices, **options)))
    assert len(calls) == 38


def test_why_kaldiio_is_not_given_the_rest(shared):
    """If this fails, kaldiio can now do more: see the head of utils/kaldi/ark.py."""
    folder = shared / "kaldi_reference/features"
    matrix = next(matrix for _, matrix in iterate(folder / "mfcc24.ark"))
    stored = io.BytesIO()
    kaldiio.matio.write_array(stored, matrix, compression_method=3)
    assert stored.getvalue() != b"\0B" + encode(matrix, 3)
    kaldis = folder / "mfcc24_compressed3.ark"
    theirs = next(values for _, values in kaldiio.load_ark(str(kaldis)))
    assert not np.array_equal(next(values for _, values in iterate(kaldis)), theirs)
    with pytest.raises(ValueError, match="int32"):
        kaldiio.matio.read_kaldi(io.BytesIO(b" [ 1e-05 0.5 ]\n"))


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [
    lambda folder: b"PKL" + pickle.dumps(Trap(folder / "ran")), lambda _: b"NPY\1\xff", lambda _: b"AUDIO\1\xff",
    lambda _: b"RIFF\xff\xff\xff\x7fWAVE", lambda _: b"fLaC\0\0", lambda _: b"\0B\4\xff\xff\xff\x7f",
    lambda _: b"\0BFM \4" + struct.pack("<ibi", 2**31 - 1, 4, 2**31 - 1), lambda _: b"\0BFV \4\xff\xff\xff\xff",
    lambda _: b"\0BDM \5" + bytes(9), lambda _: b"\0BFP \4\0\0\0\0"])
def test_only_sound_matrices_come_to_kaldiio(tmp_path, content):
    """Nothing is unpickled, sizes are checked; the message names file and utterance."""
    (tmp_path / "x.ark").write_bytes(b"utt-7 " + content(tmp_path))
    (tmp_path / "x.scp").write_text(f"utt-7 {tmp_path}/x.ark:6\n")
    for path in (tmp_path / "x.ark", tmp_path / "x.scp"):
        with pytest.raises(InputError, match=r"^\S+x\.ark: utt-7: at byte \d+: [^\n]+$"):
            list(iterate(path))
    assert not (tmp_path / "ran").exists()


def test_double_matrices_of_kaldi(tmp_path):
    matrix = np.arange(12.0).reshape(4, 3)
    kaldiio.save_ark(str(tmp_path / "d.ark"), {"a": matrix}, scp=str(tmp_path / "d.scp"))
    assert np.array_equal(RowReader(tmp_path / "d.scp").read(0, 1, 3), matrix[1:3])


def test_lengths_come_from_utt2num_frames_only_when_it_fits(tmp_path, matrices):
    scp = write(tmp_path / "feats", matrices)
    listed = tmp_path / "utt2num_frames"
    lengths = [len(features) for features in matrices.values()]
    listed.write_text("".join(f"{name} {length + 1}\n" for name, length in zip(matrices, lengths, strict=True)))
    assert RowReader(scp).num_rows.tolist() == [length + 1 for length in lengths]
    listed.write_text("".join(f"{name} 5\n" for name in list(matrices)[1:]))
    assert RowReader(scp).num_rows.tolist() == lengths
    listed.write_text("".join(f"{name} 5\n" for name in list(matrices)[:-1]))
    assert RowReader(scp).num_rows.tolist() == lengths


def test_workers_share_a_reader(tmp_path, matrices):
    """Forked processes read by position, so they do not move each other's file offset."""
    rows = RowReader(write(tmp_path / "feats", matrices))
    first = rows.read(0)
    child = os.fork()
    if child == 0:
        fine = all(np.array_equal(rows.read(index), features)
                   for _ in range(50) for index, features in enumerate(matrices.values()))
        os._exit(0 if fine else 1)
    assert all(np.array_equal(rows.read(0), first) for _ in range(500))
    assert os.waitpid(child, 0)[1] == 0


def test_many_ids_take_little_memory(tmp_path):
    scp = tmp_path / "feats.scp"
    count = 20_000
    scp.write_text("".join(f"id{i:08d}-x6uYqmx31kE-00001 feats.{i // 500}.ark:{i}\n" for i in range(count)))
    (tmp_path / "utt2num_frames").write_text(
        "".join(f"id{i:08d}-x6uYqmx31kE-00001 800\n" for i in range(count)))
    rows = RowReader(scp)
    assert len(pickle.dumps(rows)) < 100 * count
    assert rows.ids[count - 1] == f"id{count - 1:08d}-x6uYqmx31kE-00001"
    assert len(rows.files) == 40


@pytest.mark.parametrize("where", ["gunzip -c x.ark |", "| cat", "x.ark:5[0:2,0:3]", "x.ark:5[:,0:3]", "",
                                   "x.ark:99999999999999999999", "x.ark:5[0:99999999999999999999]"])
def test_commands_and_column_ranges_and_impossible_places_are_refused(tmp_path, where):
    with pytest.raises(InputError):
        parse_location(where)
    if where:
        (tmp_path / "a.scp").write_text(f"id {where}\n")
        for read in (RowReader, lambda path: list(iterate(path))):
            with pytest.raises(InputError):
                read(tmp_path / "a.scp")


@pytest.mark.parametrize("text", ["[ 1 2\n 3 4 ]", "[\n 1 2\n 3 4 ]", "[ 1 2; 3 4 ]"])
def test_a_matrix_in_text_may_begin_on_the_line_of_its_bracket(tmp_path, text):
    (tmp_path / "a.ark").write_text(f"a {text}\n")
    (name, value), = iterate(tmp_path / "a.ark")
    assert name == "a" and value.tolist() == [[1, 2], [3, 4]]


def test_a_command_in_a_script_leaves_no_trace(tmp_path):
    (tmp_path / "a.scp").write_text(f"id touch {tmp_path}/ran |\n")
    with pytest.raises(InputError, match="is a command and is not run"):
        list(iterate(tmp_path / "a.scp"))
    assert not (tmp_path / "ran").exists()


def test_locations():
    assert tuple(parse_location("/a b/x:1.ark:77[3:5]")) == ("/a b/x:1.ark", 77, 3, 6)
    assert tuple(parse_location("/a b/x.mat")) == ("/a b/x.mat", 0, 0, None)


@pytest.mark.parametrize(("content", "message"), [
    ("a b\nc\n", "line 2: expected `id value`"), ("a b\r\n", "line 1: ends in CRLF"),
    ("a b\na c\n", "id a occurs twice"),
    (" b\n", "line 1: expected `id value`"),
])
def test_malformed_tables(tmp_path, content, message):
    (tmp_path / "t").write_bytes(content.encode())
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t")


def test_a_vector_that_is_there_twice_is_an_error(tmp_path):
    (tmp_path / "x.ark").write_text("a [ 1 2 ]\nb [ 3 4 ]\na [ 1 2 ]\n")
    with pytest.raises(InputError, match="x.ark: a occurs twice; keep one"):
        read_vectors(tmp_path / "x.ark")


def test_damaged_archives(tmp_path, matrices):
    scp = write(tmp_path / "feats", matrices, compression=3)
    ark = tmp_path / "feats.ark"
    whole = ark.read_bytes()
    ark.write_bytes(whole[:-5])
    with pytest.raises(InputError, match="truncated"):
        list(iterate(scp))
    rows = RowReader(scp)
    last = len(matrices) - 1
    with pytest.raises(InputError, match=r"id11-a is cut off"):
        rows.read(last)
    ark.write_bytes(whole[:whole.index(b"id11-a") + 15])
    with pytest.raises(InputError, match="no binary matrix for id11-a"):
        rows.read(last)
    ark.unlink()
    for read in (lambda: list(iterate(scp)), lambda: RowReader(scp), lambda: read_matrix(f"{ark}:17")):
        with pytest.raises(InputError, match=r"feats\.ark"):
            read()


def test_row_ranges_beyond_the_end(tmp_path, matrices):
    scp = write(tmp_path / "feats", matrices)
    (tmp_path / "ranged.scp").write_text(f"id {read_table(scp)[1][0]}[5:900]\n")
    with pytest.raises(InputError, match="rows 5 to 900 requested"):
        list(iterate(tmp_path / "ranged.scp"))
    with pytest.raises(InputError, match="rows up to 900 requested"):
        RowReader(tmp_path / "ranged.scp")


def test_vectors(tmp_path):
    vectors = {f"u{i:04d}": np.full(3, i, np.float32) for i in range(1500)}
    scp = write(tmp_path / "v", vectors)
    for path in (scp, scp.replace(".scp", ".ark")):
        ids, table = read_vectors(path)
        assert ids == list(vectors)
        assert table.dtype == np.float32
        assert np.array_equal(table, np.stack(list(vectors.values())))
    with pytest.raises(InputError, match=r"u1 has shape \(2,\)"):
        read_vectors(write(tmp_path / "w", {"u0": np.zeros(3), "u1": np.zeros(2)}))
    with pytest.raises(InputError, match="no vectors"):
        read_vectors(write(tmp_path / "e", {}))


def test_nothing_is_published_after_an_error(tmp_path):
    for name, item, message in (("a b", np.zeros(2), "white space"), ("a", np.array([1, np.inf]), "NaN or infinite")):
        with pytest.raises(InputError, match=message):
            write(tmp_path / "x", {"fine": np.zeros(2), name: item})
        assert list(tmp_path.iterdir()) == []


def test_objects_of_other_kinds(tmp_path):
    with ArkWriter(tmp_path / "g") as writer:
        writer.write_object("a", lambda kaldi: kaldi.int32_vector([4, 2]))
    found = dict(iterate(tmp_path / "g.scp", lambda kaldi: kaldi.int32_vector()))
    assert found["a"].tolist() == [4, 2]
