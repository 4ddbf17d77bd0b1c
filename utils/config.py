"""System configurations: one YAML file per system, with inheritance and a scale, read strictly.

    base: vgg_mha          # start from conf/vgg_mha.yaml, then apply this file
    features: fbank128
    mini:                  # overrides for --scale mini
      features: fbank64

Mappings are merged key by key, everything else is replaced. `python3 -m utils.config resolve` prints
the result, as kept in a model directory; `... get FILE KEY` prints one value for the shell.
"""

import argparse
import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from utils.arguments import decimal
from utils.errors import InputError, run_main

Data = TypeVar("Data")
Table = Mapping[str, tuple[Any, type]]  # choices of `type`: name -> (object, its options, a dataclass)
SCALES = ("mini", "full")
# Types of the parts that a network's configuration need not name.
DEFAULT_TYPES = {"frontend": "kaldi", "loss": "softmax", "optimizer": "adam", "schedule": "constant", "average": "none"}
LARGEST = 2**31 - 1  # largest whole number


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a number may have; used in type hints: Annotated[float, Range(above=0)]."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{name} {value:g}" for name, value in limits.items() if math.isfinite(value))


Count = Annotated[int, Range(least=1)]
Whole = Annotated[int, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Probability = Annotated[float, Range(least=0, below=1)]  # of dropping something: never 1, which would drop everything


def load_config(path: str | Path, scale: str = "full") -> dict[str, Any]:
    """Return the configuration in `path` with its `base:` and, at scale mini, its `mini:` applied."""
    config = _load(Path(path), scale, seen=())
    config.pop("mini", None)
    return config


def _load(path: Path, scale: str, seen: tuple[str, ...]) -> dict[str, Any]:
    from utils.strict_yaml import read_yaml  # imported here so that programs that read no configuration start faster

    real = os.path.realpath(path)
    if real in seen:
        raise InputError(f"{path}: `base:` leads back to itself through {Path(seen[-1]).name}")
    config = read_yaml(path)
    mini = config.pop("mini", {})
    if not isinstance(mini, dict):
        raise InputError(f"{path}: mini: expected keys, found {mini!r}")
    if "base" in config:
        base = config.pop("base")
        if not isinstance(base, str):
            raise InputError(f"{path}: base: expected the name of a configuration beside it, found {base!r}")
        config = merge(_load(path.parent / f"{base}.yaml", scale, (*seen, real)), config)
    return merge(config, mini) if scale == "mini" else config


def merge(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return `config` with `overrides`: nested mappings key by key unless they change `type`."""
    merged = dict(config)
    for key, value in overrides.items():
        old = merged.get(key)
        default = DEFAULT_TYPES.get(key)
        same_kind = isinstance(value, dict) and isinstance(old, dict) and (
            value.get("type", old.get("type", default)) == old.get("type", default))
        merged[key] = merge(old, value) if same_kind else value
    return merged


def choice(table: Table, default: str) -> Any:
    """Return a dataclass field that `build` fills with the options of the entry of `table` that `type` names."""
    return dataclasses.field(default_factory=lambda: table[default][1](type=default),
                             metadata={"table": table, "default": default})


def choose(table: Table, mapping: Any, where: str, default: str | None = None) -> tuple[Any, Any]:
    """Return the object in `table` that the mapping's `type` (or `default`) names, and its options.

    Raises InputError if the type is not in the table or does not have an option of the mapping.
    """
    if not isinstance(mapping, dict):
        raise InputError(f"{where}: expected keys, found {mapping!r}")
    name = mapping.get("type", default)
    if not isinstance(name, str) or name not in table:
        raise InputError(f"{where}: type is {name!r}; allowed: {', '.join(table)}")
    what, options = table[name]
    allowed = [field.name for field in dataclasses.fields(options)]
    for key in mapping:
        if key not in allowed:
            raise InputError(f"{where}: {name} has no option {key!r}; allowed: {', '.join(allowed)}")
    return what, build(options, {**mapping, "type": name}, where)


def build(kind: type[Data], mapping: Any, where: str) -> Data:
    """Make the dataclass `kind` from `mapping`, nested dataclasses included.

    where: prefix of the error message, e.g. "conf/xvector.yaml: optimizer".
    Raises InputError on an unknown or missing key, or a value of the wrong type or out of range.
    """
    if not isinstance(mapping, dict):
        raise InputError(f"{where}: expected keys, found {mapping!r}")
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in mapping if key not in fields]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in mapping
               and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    if missing:
        raise InputError(f"{where}: key {missing[0]!r} is missing")
    values = {}
    for key, value in mapping.items():
        chosen = fields[key].metadata
        values[key] = (choose(chosen["table"], value, f"{where}: {key}", chosen["default"])[1] if chosen
                       else _convert(hints[key], value, f"{where}: {key}"))
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        number = _convert(arguments[0], value, where)
        if number not in arguments[1]:
            raise InputError(f"{where} is {value!r}; wanted {arguments[1]}")
        return number
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
    if wanted in (int, float):
        return _number(wanted, value, where)
    if wanted is Any or isinstance(value, wanted):
        return value
    raise InputError(f"{where}: {value!r} is not of type {'list' if wanted is tuple else wanted.__name__}")


def _number(kind: type, value: Any, where: str) -> int | float:
    """Return a whole number that fits into four bytes, or a finite float."""
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            # YAML reads 1e-4, which has no dot, as text.
            number = decimal(value) if isinstance(value, str) else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) <= LARGEST:
            return value
        raise InputError(f"{where} is {value!r}; wanted {-LARGEST} to {LARGEST}")
    raise InputError(f"{where}: {value!r} is not a {'finite' if kind is float else 'whole'} number")


def get(config: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key such as `backend.lda_dim`; raises InputError if it is absent."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"no key {key!r} in the configuration")
        value = value[part]
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    resolve = commands.add_parser("resolve", help="print the configuration as one plain YAML file")
    resolve.add_argument("--scale", choices=SCALES, default="full")
    resolve.add_argument("file")
    one = commands.add_parser("get", help="print the value of one key; a list as words")
    one.add_argument("file")
    one.add_argument("key")
    one.add_argument("--scale", choices=SCALES, default="full")
    one.add_argument("--default", help="printed if the key is absent")
    arguments = parser.parse_args()
    config = load_config(arguments.file, arguments.scale)
    if arguments.command == "resolve":
        from yaml import safe_dump

        print(safe_dump(config, sort_keys=False, width=100), end="")
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
