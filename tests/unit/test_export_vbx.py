"""A chain as VBx reads it: its own equations give the chain's vectors and PLDA."""

import numpy as np
import pytest

from steps.backend import parse_chain
from steps.backend.chain import Chain
from steps.backend.export_vbx import main, vbx_model
from steps.backend.plda import read_plda
from utils.errors import InputError

VBX = ["center", "length", "lda4", "length", "plda"]


def embeddings():
    rng = np.random.default_rng(3)
    speakers = [f"s{place // 6}" for place in range(120)]
    x = 3 + np.repeat(rng.normal(size=(20, 9)), 6, axis=0) * 2 + rng.normal(size=(120, 9))
    return x.astype(np.float32), speakers


def fitted(words):
    return Chain.fit(parse_chain(words, "test"), *embeddings())


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_vectors_and_plda_are_those_of_the_chain():
    chain, (x, _) = fitted(VBX), embeddings()
    model = vbx_model(chain, "test")
    z = unit(unit(x - model.mean1) @ model.lda - model.mean2)
    wanted = chain.process(x)
    np.testing.assert_allclose(z * 2, wanted, atol=1e-5)
    np.testing.assert_allclose(model.plda.project(z, normalise=False),
                               chain.comparison.plda.project(wanted, normalise=False), atol=1e-5)
    # What VBx derives from the file: whitened within-speaker covariance, the same between-speaker variances.
    transform, psi = model.plda.transform, model.plda.psi
    within, between = np.linalg.inv(transform.T @ transform), np.linalg.inv((transform.T / psi) @ transform)
    ours = chain.comparison.plda
    np.testing.assert_allclose(4 * within, np.linalg.inv(ours.transform.T @ ours.transform), atol=1e-6)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(np.linalg.solve(within, between)).real), np.sort(ours.psi))


@pytest.mark.parametrize("words", [["center", "lda4", "length", "plda"], ["center", "length", "cosine"],
                                   [*VBX, "asnorm5"], ["center", "length", "lda4", "length", "cosine"],
                                   [*VBX[:-1], "pldacosine"], ["parts3", "center", "length", "lda2", "length", "plda"]])
def test_other_chains_are_refused(words):
    with pytest.raises(InputError, match="the chain is .*, VBx takes center length lda200 length plda alone; train"):
        vbx_model(fitted(words), "test")


def test_files(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    chain = fitted(VBX)
    chain.save(tmp_path / "vbx")
    monkeypatch.setattr("sys.argv", ["export_vbx", str(tmp_path / "vbx"), str(tmp_path / "out")])
    (tmp_path / "out").mkdir()
    main()
    model = vbx_model(chain, "test")
    with h5py.File(tmp_path / "out/transform.h5") as file:
        assert sorted(file) == ["lda", "mean1", "mean2"]
        for name in file:
            np.testing.assert_array_equal(file[name][()], getattr(model, name))
    read = read_plda(tmp_path / "out/plda")
    np.testing.assert_allclose(read.transform, model.plda.transform, rtol=1e-12)
