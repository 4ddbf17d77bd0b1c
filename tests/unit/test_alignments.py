"""Posteriors and selections of Gaussians as Kaldi's files."""

import numpy as np
import pytest

from steps.ivector.alignments import Alignment, iterate_alignments, write_gselect, write_posteriors
from steps.ivector.posteriors import selection
from utils.errors import InputError
from utils.kaldi.ark import ArkWriter, iterate


def test_alignments_are_kaldis_text_and_come_back_from_binary(shared, tmp_path):
    folder = shared / "kaldi_reference/ivector"
    frames = dict(iterate(folder / "feats.ark"))
    posts = dict(iterate_alignments(folder / "post.txt"))
    assert [len(post.sizes) for post in posts.values()] == [len(x) for x in frames.values()]
    for binary in (False, True):
        with ArkWriter(tmp_path / "post", binary=binary) as writer:
            for name, post in posts.items():
                writer.write_object(name, lambda kaldi, entry=post: write_posteriors(kaldi, entry))
        if not binary:
            assert (tmp_path / "post.ark").read_bytes() == (folder / "post.txt").read_bytes()
        for name, post in iterate_alignments(tmp_path / "post.scp"):
            for part, expected in zip(post, posts[name], strict=True):
                np.testing.assert_array_equal(part, expected)


def test_the_first_bytes_of_binary_alignments_are_kaldis(tmp_path):
    """The layout of Kaldi's WriteBasicType and WriteIntegerVector."""
    post = Alignment(np.array([1, 0]), np.array([8]), np.array([1], np.float32))
    for write, expected in ((write_posteriors, b"u \0B\4\2\0\0\0\4\1\0\0\0\4\x08\0\0\0\4\0\0\x80?\4\0\0\0\0"),
                            (write_gselect, b"u \0B\4\2\0\0\0\4\1\0\0\0\x08\0\0\0\4\0\0\0\0")):
        with ArkWriter(tmp_path / "x") as writer:
            writer.write_object("u", lambda kaldi, write=write: write(kaldi, post))
        assert (tmp_path / "x.ark").read_bytes() == expected


@pytest.mark.parametrize("binary", [True, False])
def test_gselect_comes_back(tmp_path, binary):
    wanted = Alignment(np.array([2, 1, 2]), np.array([3, 1, 0, 7, 2]), np.ones(5, np.float32))
    with ArkWriter(tmp_path / "gselect", binary=binary) as writer:
        writer.write_object("u", lambda kaldi: write_gselect(kaldi, wanted))
    [(name, found)] = iterate_alignments(tmp_path / "gselect.ark", gselect=True)
    assert name == "u"
    for part, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(("content", "reason"), [
    (b"u [ 1 0.5 ] [ 2 ]\n", "expected posteriors"), (b"u [ 1 nan ]\n", "infinite"), (b"u [ -1 1 ]\n", "below 0"),
    (b"\v [ 1 1 ]\n", "expected posteriors"),
    (b"u \0B\4\xff\xff\xff\x7f\4\1\0\0\0", "truncated"), (b"u \0B\4\xff\xff\xff\xff", "negative size -1"),
    (b"u \0B\4\1\0\0\0\4\1\0\0\0\x08\1\0\0\0\x08\0\0\x80?", "numbers of 4 bytes")])
def test_damaged_posteriors_are_errors(tmp_path, content, reason):
    (tmp_path / "post.ark").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        list(iterate_alignments(tmp_path / "post.ark"))


@pytest.mark.parametrize(("sizes", "gaussians", "reason"), [
    ([2, 2], [0, 1, 1, 2], "2 frames, its features 3"), ([2, 1, 2], [0, 1, 1, 0, 1], "with 1 and with 2 Gaussians"),
    ([1, 1, 1], [0, 4, 1], "Gaussian 4, the UBM has 4")])
def test_selections_that_do_not_fit_are_errors(sizes, gaussians, reason):
    alignment = Alignment(np.array(sizes), np.array(gaussians), np.ones(len(gaussians), np.float32))
    with pytest.raises(InputError, match=f"gselect: u has .*{reason}"):
        selection("gselect", alignment, "u", 3, 4)
