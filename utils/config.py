"""System configurations: one YAML file a system, with inheritance, a scale and a strict reading.

    base: vgg_mha          # start from conf/vgg_mha.yaml, then apply this file
    features: fbank128
    mini:                  # overrides for --scale mini
      features: fbank64

Mappings are merged key by key, everything else is replaced. `python3 -m utils.config resolve` prints
the result, which is what a model directory keeps; `... get FILE KEY` prints one value for the shell.
"""

import argparse
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from utils.errors import InputError, run_main

Data = TypeVar("Data")
SCALES = ("mini", "full")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises InputError naming the file when it is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content


def load_config(path: str | Path, scale: str = "full") -> dict[str, Any]:
    """Return the configuration in `path` with its `base:` and, at scale mini, its `mini:` applied."""
    config = _load(Path(path), scale, seen=())
    config.pop("mini", None)
    return config


def _load(path: Path, scale: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise InputError(f"{path}: `base:` leads back to itself through {seen[-1].name}")
    config = read_yaml(path)
    base = config.pop("base", None)
    mini = config.pop("mini", {})
    if not isinstance(mini, dict):
        raise InputError(f"{path}: mini: expected keys, found {mini!r}")
    if base is not None:
        config = merge(_load(path.parent / f"{base}.yaml", scale, (*seen, path)), config)
    return merge(config, mini) if scale == "mini" else config


def merge(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return `config` with `overrides`: nested mappings key by key unless they change `type`."""
    merged = dict(config)
    for key, value in overrides.items():
        old = merged.get(key)
        same_kind = isinstance(value, dict) and isinstance(old, dict) and (
            value.get("type", old.get("type")) == old.get("type"))
        merged[key] = merge(old, value) if same_kind else value
    return merged


def build(kind: type[Data], mapping: dict[str, Any], where: str) -> Data:
    """Make the dataclass `kind` from `mapping`, nested dataclasses included.

    where: what the message names, e.g. "conf/xvector.yaml: optimizer".
    Raises InputError on an unknown or missing key, or a value of another type.
    """
    if not isinstance(mapping, dict):
        raise InputError(f"{where}: expected keys, found {mapping!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in mapping if key not in fields]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in mapping
               and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    if missing:
        raise InputError(f"{where}: key {missing[0]!r} is missing")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in mapping.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_convert(arguments[0], item, where) for item in value)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    wanted = origin or hint
    if wanted is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4, without a dot, as text
        except ValueError:
            pass
    elif wanted is Any or (isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))):
        return value
    raise InputError(f"{where}: {value!r} is not of type {getattr(wanted, '__name__', wanted)}")


def get(config: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key such as `backend.lda_dim`; raises InputError when absent."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"no key {key!r} in the configuration")
        value = value[part]
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    resolve = commands.add_parser("resolve", help="print the configuration as one plain YAML")
    resolve.add_argument("--scale", choices=SCALES, default="full")
    resolve.add_argument("file")
    one = commands.add_parser("get", help="print the value of one key; lists as words")
    one.add_argument("file")
    one.add_argument("key")
    one.add_argument("--scale", choices=SCALES, default="full")
    one.add_argument("--default", help="printed when the key is absent")
    arguments = parser.parse_args()
    config = load_config(arguments.file, arguments.scale)
    if arguments.command == "resolve":
        print(yaml.safe_dump(config, sort_keys=False, width=100), end="")
        return
    try:
        value = get(config, arguments.key)
    except InputError:
        if arguments.default is None:
            raise
        value = arguments.default
    print(*value if isinstance(value, list) else [value])


if __name__ == "__main__":
    run_main(main)
