"""The recipe's table of systems: its output, and configurations that it refuses before anything runs."""

import subprocess
from pathlib import Path

import pytest

from steps.ivector.config import read_ivector_config
from steps.systems import checked_scoring, main
from utils.config import load_config
from utils.errors import InputError
from utils.systems import as_shell, facts_of

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf"


def facts(folder, text, augmented=False):
    (folder / "features").mkdir(exist_ok=True)
    (folder / "features/fbank.conf").touch()
    (folder / "x.yaml").write_text(text)
    return facts_of(load_config(folder / "x.yaml"), folder / "x.yaml", augmented, checked_scoring)


def test_facts_are_what_the_recipe_needs(tmp_path):
    text = ("kind: network\nfeatures: fbank\nfrontend: {vad: true}\n"
            "scoring: [cosine, segments]\ntrain_set: train_net_sp\n")
    network = {"kind": "network", "features": "fbank", "train_set": "train_net_sp", "sets": "train test train_sp",
               "vad": "true", "online": "false", "scoring": "cosine segments"}
    copies = {"train_set": "train_net_sp_aug", "sets": "train test train_sp train_aug"}
    ivector = {"kind": "ivector", "features": "fbank", "train_set": "train_net", "sets": "train test",
               "vad": "false", "online": "false", "scoring": "cosine plda"}
    assert facts(tmp_path, text) == network
    assert facts(tmp_path, text, augmented=True) == network | copies
    assert facts(tmp_path, f"{text}online: {{add: 0.5}}\n", augmented=True) == network | {"online": "true"}
    text = "kind: ivector\nfeatures: fbank\nbackend: {lda_dim: 3}\n"
    assert facts(tmp_path, text, augmented=True) == ivector


def test_a_shell_reads_any_value_and_runs_none(tmp_path):
    values = {"a": "x y", "b": "$(touch gone)", "c": "it's; `touch gone` \\", "d": ""}
    (tmp_path / "facts.sh").write_text(as_shell(values))
    done = subprocess.run(["bash", "-euc", '. ./facts.sh; printf "%s|" "$a" "$b" "$c" "$d"'], cwd=tmp_path, text=True,
                          capture_output=True, check=True)
    assert done.stdout == "".join(f"{value}|" for value in values.values())
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("features: fbank", "kind is None, wanted ivector or network"),
    ("kind: [network]\nfeatures: fbank", r"kind is \['network'\], wanted ivector or network"),
    ("kind: network", "features is None, wanted the name of a file in .*/features, without .conf"),
    ("kind: network\nfeatures: a b", "features is 'a b', wanted the name of a file"),
    ("kind: network\nfeatures: ../fbank", "features is '../fbank', wanted the name of a file"),
    ("kind: network\nfeatures: mfcc", "no features 'mfcc' in "),
    ("kind: network\nfeatures: fbank\nfrontend:", "frontend: expected keys, found None"),
    ("kind: network\nfeatures: fbank\nscoring: []", "scoring is .*, wanted a list of cosine, plda, segments"),
    ("kind: network\nfeatures: fbank\nscoring: [{a: 1}]", "scoring is .*, wanted a list of cosine, plda, segments"),
    ("kind: ivector\nfeatures: fbank\nscoring: [segments]", "scoring is .*, wanted a list of cosine, plda, or of"),
    ("kind: ivector\nfeatures: fbank", "backend: key 'lda_dim' is missing"),
    ("kind: ivector\nfeatures: fbank\nscoring: [cosine]\nbackend: {lda_dim: 3}", "backend: 'lda_dim' is not an option"),
])
def test_unfit_values_are_named_with_the_file(tmp_path, text, message):
    with pytest.raises(InputError, match=r"x\.yaml: " + message):
        facts(tmp_path, text)


def test_scoring_of_an_ivector_system_passes_the_recipe_and_training_alike(tmp_path, monkeypatch, capsys):
    """It once passed the recipe's check and failed in training."""
    for path in [*CONF.glob("ivector*.yaml"), CONF / "features"]:
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "cosine.yaml").write_text("base: ivector_kaldi\nscoring: [cosine]\nbackend: null\n")
    words = ["--conf", str(tmp_path), "--exp", str(tmp_path / "exp"), "cosine"]
    monkeypatch.setattr("sys.argv", ["systems", "--scale", "mini", *words])
    main()
    assert capsys.readouterr().out == "cosine\n"
    assert "kind=ivector\nfeatures=mfcc24\n" in (tmp_path / "exp/cosine/facts.sh").read_text()
    assert read_ivector_config(tmp_path / "exp/cosine/system.yaml").scoring == ("cosine",)


@pytest.mark.parametrize("scale", ["mini", "full"])
@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_read(tmp_path, monkeypatch, path, scale):
    words = ["--conf", str(CONF), "--exp", str(tmp_path), "--scale", scale, path.stem]
    monkeypatch.setattr("sys.argv", ["systems", *words])
    main()
    if path.stem.startswith("ivector"):
        assert read_ivector_config(tmp_path / path.stem / "system.yaml").ubm.num_gaussians >= 128
