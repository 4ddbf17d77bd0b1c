"""System configurations: inheritance, scale, strict reading."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from utils.config import Count, Probability, Share, build, choice, get, load_config
from utils.errors import InputError


@dataclass(frozen=True)
class Optimizer:
    type: Literal["adam", "sgd"]
    lr: float = 1e-3
    milestones: tuple[int, ...] = ()


@dataclass(frozen=True)
class Steps:
    type: str
    every: Count = 10


@dataclass(frozen=True)
class Constant:
    type: str


SCHEDULES = {"constant": (None, Constant), "step": (len, Steps)}


@dataclass(frozen=True)
class Config:
    name: str
    width: int = 512
    share: Share = 0.5
    dropout: Probability = 0.0
    schedule: Constant | Steps = choice(SCHEDULES, "constant")
    vad: bool = False
    optimizer: Optimizer = field(default_factory=lambda: Optimizer("adam"))
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width is {self.width}, wanted 1 or more")


def write(folder, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_base_and_mini_are_merged_key_by_key(tmp_path):
    write(tmp_path,
          vgg="features: fbank128\nencoder: {type: vgg, channels: [128, 256]}\n"
              "mini: {encoder: {channels: [16, 32]}}",
          vgg_mean="base: vgg\npooling: {type: mean}\nmini: {features: fbank64}")
    full = load_config(tmp_path / "vgg_mean.yaml")
    assert full == {"features": "fbank128", "encoder": {"type": "vgg", "channels": [128, 256]},
                    "pooling": {"type": "mean"}}
    mini = load_config(tmp_path / "vgg_mean.yaml", "mini")
    assert mini["features"] == "fbank64"
    assert mini["encoder"] == {"type": "vgg", "channels": [16, 32]}


def test_another_type_replaces_the_whole_block(tmp_path):
    write(tmp_path, a="pooling: {type: heads, heads: 8}", b="base: a\npooling: {type: mean}")
    assert load_config(tmp_path / "b.yaml")["pooling"] == {"type": "mean"}


def test_the_default_type_may_be_named(tmp_path):
    write(tmp_path, a="frontend: {cmn: chunk}\nloss: {margin: 0.1}",
          b="base: a\nfrontend: {type: kaldi, deltas: 2}\nloss: {type: aam_softmax}")
    assert load_config(tmp_path / "b.yaml") == {"frontend": {"cmn": "chunk", "type": "kaldi", "deltas": 2},
                                                "loss": {"type": "aam_softmax"}}


def test_a_circle_of_bases_is_an_error(tmp_path):
    write(tmp_path, a="base: b", b="base: a")
    with pytest.raises(InputError, match="leads back to itself"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(("text", "message"), [
    ("- a\n- b", r"bad\.yaml: expected `key: value` lines, found list"),
    ("a: [", r"bad\.yaml: line 1: expected the node content, but found '<stream end>'"),
    ("", "found NoneType"),
    ("just words", "found str"),
    ("a: 1\nb: !!python/object:os.system {}", "line 2: the tag 'tag:yaml.org,2002:python/object:os.system'; leave it"),
    ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "line 5: the key 'c' is given twice; keep one"),
    ("a: &x [1]\nb: *x", "line 1: the alias or anchor 'x'; write out"),
    ("a: {<<: {b: 1}}", "line 1: a key that is not a word"),
    ("? [a]\n: 1", "line 1: a key that is not a word"),
    ("a: " + 10**5 * "[", "line 1: nested more than 16 levels deep"),
    ("a: 1\n" + "".join(f"{depth * ' '}b:\n" for depth in range(40)), "line 17: nested more than 16 levels deep"),
    ('base: "x\\0y"', r"line 1: 'x.x00y' holds an unprintable character"),
    ("a: x\0y", "not YAML: unacceptable character #x0000"),
    ("a: 2001-40-40", "not YAML: month must be in 1..12"),
    ("a: " + 5000 * "9", "not YAML: Exceeds the limit"),
    ("a: 020", "line 1: '020' would be read as another number; write it with plain digits"),
    ("a: 1\nb: [0.5, 1:30]", "line 2: '1:30' would be read as another number"),
    ("a: 1_0", "line 1: '1_0' would be read as another number"), ("a: 0x10", "line 1: '0x10' would be read"),
    ("a: 1_0.5", "line 1: '1_0.5' would be read"),
    ("base: 3", "base: expected the name of a configuration beside it, found 3"),
    ("base:", "base: expected the name of a configuration beside it, found None"),
    ("mini:", "mini: expected keys, found None"),
])
def test_what_is_not_a_plain_mapping_is_one_line_with_file_and_place(tmp_path, text, message):
    write(tmp_path, bad=text)
    with pytest.raises(InputError, match=message) as error:
        load_config(tmp_path / "bad.yaml", "mini")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 250


def test_an_alias_bomb_ends_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 12)]
    write(tmp_path, bomb="\n".join(lines))
    with pytest.raises(InputError, match="line 1: the alias or anchor 'a0'; write out what it stands for"):
        load_config(tmp_path / "bomb.yaml")


def test_build_converts_and_nests():
    optimizer = {"type": "sgd", "lr": "1e-4", "milestones": [3, 5]}
    config = build(Config, {"name": "x", "optimizer": optimizer}, "x.yaml")
    assert config.optimizer == Optimizer("sgd", 1e-4, (3, 5))
    assert config.width == 512
    assert config.schedule == Constant("constant")
    assert build(Config, {"name": "x", "schedule": {"type": "step"}}, "x.yaml").schedule == Steps("step", 10)
    assert config.patience is None


@pytest.mark.parametrize(("mapping", "message"), [
    ({"name": "x", "widht": 3}, r"x\.yaml: unknown key 'widht'; allowed: name, width, share, dropout"),
    ({}, r"x\.yaml: key 'name' is missing"),
    ({"name": "x", "width": "wide"}, r"x\.yaml: width: 'wide' is not a whole number"),
    ({"name": "x", "width": True}, "width: True is not a whole number"),
    ({"name": "x", "width": 2**31}, "width is 2147483648; wanted -2147483647 to 2147483647"),
    ({"name": "x", "share": float("nan")}, "share: nan is not a finite number"),
    ({"name": "x", "share": "1e999"}, "share: '1e999' is not a finite number"),
    ({"name": "x", "share": 10**400}, "share: 1000.* is not a finite number"),
    ({"name": "x", "share": -0.1}, r"x\.yaml: share is -0\.1; wanted at least 0 and at most 1"),
    ({"name": "x", "dropout": 1}, "dropout is 1; wanted at least 0 and below 1"),
    ({"name": "x", "optimizer": {"type": "sgd", "milestones": 3}}, "milestones: 3 is not of type list"),
    ({"name": "x", "schedule": {"type": "constant", "every": 3}},
     r"x\.yaml: schedule: constant has no option 'every'; allowed: type$"),
    ({"name": "x", "schedule": {"every": 3}}, "schedule: constant has no option 'every'"),
    ({"name": "x", "schedule": {"type": "step", "every": 0}}, "schedule: every is 0; wanted at least 1"),
    ({"name": "x", "schedule": {"type": "poly"}}, "schedule: type is 'poly'; allowed: constant, step"),
    ({"name": "x", "schedule": {"type": ["step"]}}, r"schedule: type is \['step'\]; allowed: constant, step"),
    ({"name": "x", "schedule": None}, "schedule: expected keys, found None"),
    ({"name": "x", "vad": 1}, "vad: 1 is not of type bool"),
    ({"name": "x", "width": 0}, "width is 0, wanted 1 or more"),
    ({"name": "x", "optimizer": {"type": "lion"}}, "optimizer: type: 'lion' is not one of adam, sgd"),
    ({"name": "x", "optimizer": {"type": "sgd", "momentum": 1}}, "optimizer: unknown key 'momentum'"),
    ({"name": "x", "optimizer": 3}, "optimizer: expected keys, found 3"),
])
def test_build_names_key_value_and_what_is_allowed(mapping, message):
    with pytest.raises(InputError, match=message):
        build(Config, mapping, "x.yaml")


def test_get_reads_dotted_keys():
    assert get({"a": {"b": 3}}, "a.b") == 3
    with pytest.raises(InputError, match=r"no key 'a\.c'"):
        get({"a": {"b": 3}}, "a.c")
