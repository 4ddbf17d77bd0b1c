"""System configurations: inheritance, scale, strict reading."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from utils.config import build, get, load_config
from utils.errors import InputError


@dataclass(frozen=True)
class Optimizer:
    type: Literal["adam", "sgd"]
    lr: float = 1e-3
    milestones: tuple[int, ...] = ()


@dataclass(frozen=True)
class Config:
    name: str
    width: int = 512
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


def test_a_circle_of_bases_is_an_error(tmp_path):
    write(tmp_path, a="base: b", b="base: a")
    with pytest.raises(InputError, match="leads back to itself"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words", "a: !!python/object:os.system {}"])
def test_what_is_no_mapping_is_an_error_with_the_file(tmp_path, text):
    write(tmp_path, bad=text)
    with pytest.raises(InputError, match=r"bad\.yaml"):
        load_config(tmp_path / "bad.yaml")


def test_build_converts_and_nests():
    optimizer = {"type": "sgd", "lr": "1e-4", "milestones": [3, 5]}
    config = build(Config, {"name": "x", "optimizer": optimizer}, "x.yaml")
    assert config.optimizer == Optimizer("sgd", 1e-4, (3, 5))
    assert config.width == 512
    assert config.patience is None


@pytest.mark.parametrize(("mapping", "message"), [
    ({"name": "x", "widht": 3}, r"x\.yaml: unknown key 'widht'; allowed: name, width, vad, optimizer"),
    ({}, r"x\.yaml: key 'name' is missing"),
    ({"name": "x", "width": "wide"}, r"x\.yaml: width: 'wide' is not of type int"),
    ({"name": "x", "width": True}, "width: True is not of type int"),
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
