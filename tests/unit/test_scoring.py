"""Trial lists to score files: text read and written in blocks, ids, and both ways of computing scores."""

import re
from itertools import product

import numpy as np
import pytest

from steps.backend import scoring
from steps.backend.cosine import cosine_sides
from steps.backend.scoring import Sides, score_trials
from utils import text_lines
from utils.errors import InputError
from utils.text_lines import IdTable, hash_words, in_threads, join, locate, read_blocks
from utils.text_numbers import format_numbers, parse_numbers


@pytest.fixture(params=[16, 100, 1 << 20])
def block_size(request, monkeypatch):
    """Blocks shorter than a line, of some lines, and of all lines."""
    monkeypatch.setattr(text_lines, "BLOCK", request.param)


def fields_of(path, columns):
    found = []
    for block in read_blocks(path):
        lines = locate(block, columns)
        found += [[lines.field(row, column) for column in range(columns)] for row in range(len(lines.ends))]
    return found


@pytest.mark.parametrize("text", [
    "a b\nccc dddd\ne f\n", "a b\nc d\ne f", "x y\n", "a  b\n c\td \ne f\n", "ä ö\nlong-" + "x" * 300 + " y\nz z\n"])
def test_lines_come_out_as_python_splits_them(tmp_path, block_size, text):
    (tmp_path / "list").write_text(text)
    assert fields_of(tmp_path / "list", 2) == [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(("text", "message"), [
    ("a b\nc\nd e\n", "list:2: 1 fields, expected 2: 'c'"), ("a b\nc d e\nf\n", "list:2: 3 fields"),
    ("a b\n\nc d\n", "list:2: 0 fields"), ("a b\nc d\r\n", "list:2: carriage return"), ("", "list: empty")])
def test_malformed_lines_are_named(tmp_path, block_size, text, message):
    (tmp_path / "list").write_bytes(text.encode())
    with pytest.raises(InputError, match=message):
        fields_of(tmp_path / "list", 2)


def written(values):
    head, tail = format_numbers(np.array(values, float))
    return [int(first).to_bytes(8, "little").decode() + chr(last) for first, last in zip(head, tail, strict=True)]


def test_numbers_are_written_in_nine_characters():
    assert written([0, 1, -1, 0.12345678, -0.12345678, 123.456789, -123.456789, 999999.96, -99999.996]) == [
        "0.0000000", "1.0000000", "-1.000000", "0.1234568", "-0.123457", "123.45679", "-123.4568", "999999.96",
        "-100000.0"]
    assert written([9.99999996, -9.9999996, 99.9999999]) == ["10.000000", "-10.00000", "100.00000"]
    assert written([]) == []
    values = np.random.default_rng(0).normal(size=5000) * 10.0 ** np.random.default_rng(1).integers(-4, 5, 5000)
    for value, text in zip(values, written(values), strict=True):
        assert len(text) == 9
        decimals = len(text) - text.index(".") - 1
        assert float(text) == pytest.approx(value, abs=0.5001 * 10.0**-decimals)


def parsed(words):
    return parse_numbers(*join([word.encode() for word in words]))


def test_numbers_are_read_exactly_as_python_reads_them():
    rng = np.random.default_rng(0)
    values = rng.normal(size=3000) * 10.0 ** rng.integers(-6, 9, 3000)
    words = [format(value, rng.choice(["", ".3f", ".6g", ".7g", ".0f", "e", "+.2f", ".12f"])) for value in values]
    words += ["0", "-0.0", "7", "-7", "1.", ".5", "-.5", "1e5", "+1.5", "2.E-3", "000123.40", "123456789012345",
              "12345678901234567890", "0.000000000000001"]
    assert parsed(words).tolist() == [float(word) for word in words]


def test_what_is_no_number_is_nan():
    words = ["abc", "1.2.3", "--1", "1-2", "-", ".", "-.", "...", "1_000", "nan", "0x10", "1,5", "12/4", "12:4", "1.5f",
             "1.899526.64", "inf", "-inf", "Infinity", "1e400", "1e", "e5", "1e5.", "+-1", "1+",
             "\u0661\u0662\u0663", "1\x002"]
    assert np.isnan(parsed(words)).all()


def test_hostile_words_are_read_as_python_reads_a_decimal_number():
    """Every word of up to five characters that occur in numbers, and long words with some of them anywhere."""
    rng = np.random.default_rng(3)
    words = ["".join(word) for size in range(1, 6) for word in product("17.-+e_", repeat=size)]
    spoilers = [".", ".", "-", "+", "e", "E", "_", "x", "/", ":", ",", "\0", "\x7f", "\u0663", "\xa0", "n", "0"]
    for size in rng.integers(1, 21, 30000):
        word = rng.choice(list("0123456789"), size).tolist()
        for _ in range(rng.integers(4)):
            word[rng.integers(size)] = rng.choice(spoilers)
        words.append("".join(word))
    grammar = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
    expected = [float(word) if grammar.fullmatch(word) and np.isfinite(float(word)) else np.nan for word in words]
    np.testing.assert_array_equal(parsed(words), expected)
    assert 10000 < np.isnan(expected).sum() < len(words) - 10000


def test_hashes_tell_words_apart():
    words = sorted({f"{'x' * (index % 20)}{index}" for index in range(20000)} | {"", "a", "aa", "a" * 8, "a" * 9})
    hashes = hash_words(*join([word.encode() for word in words]))
    assert len(set(hashes.tolist())) == len(words)
    text, starts, ends = join([b"same-id-12345", b"other", b"same-id-12345"])
    assert len(set(hash_words(text, starts, ends).tolist())) == 2
    # Words that differ in the last bytes of two of their 64-bit words, which cancel in a weak hash.
    pairs = [b"aaaaaaa%cbbbbbbb%c" % (first, second) for first in range(33, 127) for second in range(33, 127)]
    assert len(set(hash_words(*join(pairs)).tolist())) == len(pairs)


@pytest.mark.parametrize("number", [1, 2, 500, 20000])
def test_ids_are_found_and_others_are_not(number):
    rng = np.random.default_rng(number)
    ids = [f"{'abc'[index % 3] * (index % 9)}-{index}" for index in range(number)]
    table = IdTable(ids)
    wanted = rng.integers(0, number, 3000)
    assert (table.find(*join([ids[row].encode() for row in wanted])) == wanted).all()
    assert (table.find(*join([b"%d" % index for index in range(500)])) == -1).all()
    with pytest.raises(InputError, match=f"id {ids[0]} occurs twice"):
        IdTable([*ids, ids[0]])


def test_threads_keep_the_order_and_pass_errors_on():
    assert list(in_threads(lambda item: item**2, iter(range(100)))) == [item**2 for item in range(100)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, [1, 0, 1]))


def test_both_ways_of_computing_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    sides = Sides(*(rng.normal(size=(50, 9)).astype(np.float32) for _ in range(2)))
    i, j = rng.integers(0, 50, size=(2, 6000))
    expected = (sides.rows.astype(float)[i] * sides.columns[j]).sum(axis=1)
    for dense in (0, 10**9):
        monkeypatch.setattr(scoring, "DENSE", dense)
        np.testing.assert_allclose(sides.scores(i, j), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(sides.scores(i[:2], j[:2]), expected[:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("columns", [2, 3])
def test_score_files_keep_the_order_of_the_list(tmp_path, block_size, columns):
    rng = np.random.default_rng(2)
    ids = [f"{'s' * (1 + index % 4)}{index}" for index in range(40)]
    x = rng.normal(size=(40, 6)).astype(np.float32)
    pairs = np.array([rng.choice(40, 2, replace=False) for _ in range(300)])
    label = " target" if columns == 3 else ""
    (tmp_path / "trials").write_text("".join(f"{ids[i]} {ids[j]}{label}\n" for i, j in pairs))
    score_trials(tmp_path / "trials", tmp_path / "scores", cosine_sides(x, x), ids, ids)
    lines = [line.split(" ") for line in (tmp_path / "scores").read_text().splitlines()]
    assert [line[:2] for line in lines] == [[ids[i], ids[j]] for i, j in pairs]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose([float(line[2]) for line in lines], (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1),
                               atol=1e-6)


def score_two(folder):
    """Score the list in `folder` with embeddings of a and b."""
    ids = ["a", "b"]
    score_trials(folder / "trials", folder / "scores", cosine_sides(np.eye(2), np.eye(2)), ids, ids)


def test_unknown_ids_are_named_and_nothing_is_written(tmp_path, block_size, monkeypatch):
    (tmp_path / "trials").write_text("a b target\na x1 target\nx2 b nontarget\nx3 x4 target\nx5 x1 nontarget\n" * 5)
    with pytest.raises(InputError, match="trials: 5 ids have no embedding: x1, x2, x3, x4, x5;"):
        score_two(tmp_path)
    (tmp_path / "trials").write_text("a b target\na id1/x/1.wav target\n")
    with pytest.raises(InputError, match="1 ids have no embedding: id1/x/1.wav; they are paths"):
        score_two(tmp_path)
    monkeypatch.setattr(scoring, "MANY", 3)
    (tmp_path / "trials").write_text("".join(f"a x{index} target\n" for index in range(1000)))
    with pytest.raises(InputError, match="or more ids have no embedding: x0, x1, "):
        score_two(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trials"]


@pytest.mark.parametrize(("text", "message"), [
    ("a b target\na target\n", "trials:2: 2 fields"), ("a\n", "trials:1: 1 fields"),
    ("a b c d\n", "trials:1: 4 fields"), ("a b target\r\n", "trials:1: carriage return"), ("", "trials"),
    ("a b target\na b\0 target\n", "trials:2: a NUL byte"), ("a b target\n\na b target\n", "trials:2: 0 fields"),
    ("a b target\na b target\nb b nontarget\n", "trials:3: a trial of b with itself; remove the line")])
def test_malformed_lists_are_errors(tmp_path, text, message):
    (tmp_path / "trials").write_bytes(text.encode())
    with pytest.raises(InputError, match=message):
        score_two(tmp_path)
    assert not (tmp_path / "scores").exists()


def test_lists_that_are_not_utf8_are_errors(tmp_path, block_size):
    (tmp_path / "trials").write_bytes("a b target\n\u00e4 b target\n".encode() + b"a \xe4 target\n")
    with pytest.raises(InputError, match="trials:3: not UTF-8"):
        score_two(tmp_path)


def test_an_enrolment_model_may_have_the_name_of_an_utterance(tmp_path):
    (tmp_path / "trials").write_text("a a target\n")
    score_trials(tmp_path / "trials", tmp_path / "scores", cosine_sides(np.eye(2), np.eye(2)), ["a", "b"], ["b", "a"])
    assert (tmp_path / "scores").read_text() == "a a 0.0000000\n"


def test_a_score_that_is_no_number_is_an_error(tmp_path):
    (tmp_path / "trials").write_text("a a\na b\n")
    for bad in (np.nan, np.inf, 1e9):
        sides = Sides(np.ones((1, 1), np.float32), np.array([[1], [bad]], np.float32))
        with pytest.raises(InputError, match="trials:2: the score of a b is"):
            score_trials(tmp_path / "trials", tmp_path / "scores", sides, ["a"], ["a", "b"])
    assert not (tmp_path / "scores").exists()
