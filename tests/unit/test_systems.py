"""The recipe's table of systems: its output, and configurations that it refuses before anything runs."""

import subprocess
from pathlib import Path

import pytest

from steps.ivector.config import read_ivector_config
from steps.systems import facts_of_chains, main
from utils.config import load_config
from utils.errors import InputError
from utils.systems import as_shell, facts_of, in_order

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf"


def facts(folder, text, augmented=False):
    (folder / "features").mkdir(exist_ok=True)
    (folder / "features/fbank.conf").touch()
    (folder / "x.yaml").write_text(text)
    return facts_of(load_config(folder / "x.yaml"), folder / "x.yaml", augmented, facts_of_chains)


def test_facts_are_what_the_recipe_needs(tmp_path):
    text = ("kind: network\nfeatures: fbank\nfrontend: {vad: true}\n"
            "backend: {a: [center, cosine], s: [segments]}\ntrain_set: train_net_sp\n")
    network = {"kind": "network", "features": "fbank", "train_set": "train_net_sp", "sets": "train test train_sp",
               "vad": "true", "online": "false", "chains": "a", "segments": "s", "copies": "false", "after": ""}
    copies = {"train_set": "train_net_sp_aug", "sets": "train test train_sp train_aug"}
    ivector = {"kind": "ivector", "features": "fbank", "train_set": "train_net", "sets": "train test",
               "vad": "false", "online": "false", "chains": "cosine", "segments": "", "copies": "false",
               "after": ""}
    assert facts(tmp_path, text) == network
    assert facts(tmp_path, text, augmented=True) == network | copies
    assert facts(tmp_path, f"{text}online: {{add: 0.5}}\n", augmented=True) == network | {"online": "true"}
    text = "kind: ivector\nfeatures: fbank\nbackend: [center, cosine]\n"
    assert facts(tmp_path, text, augmented=True) == ivector
    text = "kind: ivector\nfeatures: fbank\nbackend: [copies, center, lda3, plda]\n"
    assert facts(tmp_path, text) == ivector | {"chains": "plda", "copies": "true", "sets": "train test train_sp"}


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
    ("kind: network\nfeatures: fbank\ninit: xvector", "init: expected keys, found 'xvector'"),
    ("kind: network\nfeatures: fbank\ndistil: {models: small}", "distil: models is 'small', wanted a list of systems"),
    ("kind: network\nfeatures: fbank", "backend is None, wanted a chain or named chains"),
    ("kind: ivector\nfeatures: fbank\nbackend: [segments]", "backend: no part 'segments' of a chain; "),
    ("kind: ivector\nfeatures: fbank\nbackend: {lda_dim: 3}", "backend: lda_dim: a chain is 3, wanted words such as"),
])
def test_unfit_values_are_named_with_the_file(tmp_path, text, message):
    with pytest.raises(InputError, match=r"x\.yaml: " + message):
        facts(tmp_path, text)


def test_chains_of_the_command_line_replace_those_of_every_configuration(tmp_path, monkeypatch, capsys):
    words = ["--scale", "mini", "--conf", str(CONF), "--exp", str(tmp_path), "--backend", "[center, wccn, cosine]"]
    monkeypatch.setattr("sys.argv", ["systems", *words, "ivector", "xvector"])
    main()
    assert capsys.readouterr().out == "ivector xvector\n"
    for system in ("ivector", "xvector"):
        assert "chains=cosine\nsegments=''\ncopies=false\n" in (tmp_path / system / "facts.sh").read_text()
        assert "backend:\n- center\n- wccn\n- cosine\n" in (tmp_path / system / "system.yaml").read_text()
    assert read_ivector_config(tmp_path / "ivector/system.yaml").backend == ["center", "wccn", "cosine"]
    for bad, message in (("[center", "--backend: line 1: "), ("cosine", "backend is 'cosine', wanted a chain or")):
        monkeypatch.setattr("sys.argv", ["systems", *words[:-1], bad, "xvector"])
        with pytest.raises(InputError, match=message):
            main()


def test_a_system_follows_those_whose_models_it_needs():
    def starts(**models):
        return {name: {"init": {"model": model}} if model else {} for name, model in models.items()}

    found = in_order(starts(last="b", a="", b="first", first="", other="elsewhere"))
    assert found == ["first", "b", "last", "a", "other"]
    taught = {"a": {"distil": {"models": ["b", "/elsewhere", "c"]}}, "c": {"init": {"model": "d"}}, "b": {}, "d": {}}
    assert in_order(taught) == ["b", "d", "c", "a"]
    with pytest.raises(InputError, match="distil.models: a <- b <- c <- a: each needs the next one's model"):
        in_order(starts(a="b", b="c", c="a"))


@pytest.mark.parametrize("scale", ["mini", "full"])
@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_read(tmp_path, monkeypatch, path, scale):
    words = ["--conf", str(CONF), "--exp", str(tmp_path), "--scale", scale, path.stem]
    monkeypatch.setattr("sys.argv", ["systems", *words])
    main()
    if path.stem.startswith("ivector"):
        assert read_ivector_config(tmp_path / path.stem / "system.yaml").ubm.num_gaussians >= 128
