"""Keys of configurations changed on the command line: `--set "train.epochs=20 encoder.channels=[8, 16]"`.

A value is YAML and ends where the next `key=` begins. A setting applies to those of the chosen systems that have its
key, as the file with the key would; a key that no system has is an error.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from utils.config import Table, merge
from utils.errors import InputError
from utils.strict_yaml import parse_yaml

KEY = re.compile(r"(?:^|\s)([A-Za-z_][\w.]*)=")
BACKEND = "backend."  # a back-end's chains have any names; steps/backend checks them
Settings = dict[str, Any]  # dotted key -> value
KeysOf = Callable[[dict[str, Any], str], Sequence[str]]  # of a configuration and its file: see steps/systems.py


def parse_settings(text: str) -> Settings:
    """Return the settings in the value of --set; of a key given twice, the last. Raises InputError for other text."""
    found = list(KEY.finditer(text))
    wrong = text[:found[0].start() if found else None].split()
    if wrong:
        raise InputError(f"--set: {wrong[0]!r} is not key=value; wanted for example train.epochs=20")
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match[1]: parse_yaml(text[match.end():end].strip(), f"--set {match[1]}")
            for match, end in zip(found, ends, strict=False)}


def with_settings(config: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a configuration with these values in the place of its own, merged like a file's.

    Types come first, in whatever order they are given: the other keys of a part belong to its type.
    """
    for key, value in sorted(settings.items(), key=lambda item: not item[0].endswith(".type")):
        for part in reversed(key.split(".")):
            value = {part: value}
        config = merge(config, value)
    return config


def change(configs: Mapping[str, dict[str, Any]], settings: Settings, keys_of: KeysOf, picked: Settings,
           ) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the configurations (by name) with the settings, and a remark on each setting that only some have.

    keys_of: returns the dotted keys that a configuration may have, and raises InputError if its values are wrong.
    picked: further settings, which give way to the others; no configuration need have their keys, and none that starts
    from another of them takes its epochs from there.
    Raises InputError for a key that no configuration has, with the nearest that one has.
    """
    changed, known = {}, set()
    having: dict[str, list[str]] = {key: [] for key in settings}
    for name, config in configs.items():
        allowed = set(keys_of(config, name))
        types = {key: value for key, value in settings.items() if key in allowed and key.endswith(".type")}
        if types:  # they decide which other keys there are
            allowed = set(keys_of(with_settings(config, types), f"{name} with --set"))
        second = (config.get("init") or {}).get("model") in configs  # a second stage is short
        suits = {key: value for key, value in picked.items() if not (second and key == "train.epochs")}
        own = {key: value for key, value in (suits | settings).items() if key in allowed or key.startswith(BACKEND)}
        changed[name] = with_settings(config, own)
        keys_of(changed[name], f"{name} with --set")
        known |= allowed
        for key in own.keys() & settings.keys():
            having[key].append(name)
    for key, names in having.items():
        if not names:
            raise InputError(f"--set: no chosen system has the key {key!r}; {suggestion(key, sorted(known))}")
    return changed, [f"--set {key} changes {' '.join(names)} only; the other systems have no such key"
                     for key, names in having.items() if len(names) < len(configs)]


def suggestion(key: str, known: Sequence[str]) -> str:
    """Return which known key may be meant: one with the same last part, one spelt alike, or one beside it."""
    first, last = key.split(".")[0], key.split(".")[-1]
    near = [name for name in known if name.split(".")[-1] == last][:1] or difflib.get_close_matches(key, known, 1, 0.8)
    if near:
        return f"did you mean {near[0]}?"
    beside = [name for name in known if name.startswith(f"{first}.")]
    return f"allowed: {', '.join(beside or [name for name in known if '.' not in name])}"


def keys_of(kind: type, mapping: Any, tables: Mapping[str, Table], but: Sequence[str] = ()) -> Iterator[str]:
    """Yield the dotted keys of the configuration `mapping` that utils.config.build makes a dataclass `kind` from.

    tables: those of its keys with a `type` that are checked elsewhere; but: keys that are not for users.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in but:
            continue
        yield field.name
        own = mapping.get(field.name) if isinstance(mapping, dict) else None
        table = field.metadata.get("table") or tables.get(field.name)
        if table:
            name = own.get("type") if isinstance(own, dict) else None
            inner = table[name or field.metadata.get("default")][1]
        else:
            hint = hints[field.name]
            inner = next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)
        if inner and typing.get_origin(hints[field.name]) is not tuple:
            yield from (f"{field.name}.{key}" for key in keys_of(inner, own, {}))
