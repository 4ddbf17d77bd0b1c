"""The part of YAML that configurations need: mappings, lists, numbers, words. Dangerous forms are refused.

Errors name the line of a duplicate key, an anchor or alias (a few lines of them can expand to gigabytes), a tag, a
merge key, more than 16 levels, a number that YAML reads as another one (020 as 16), or a value with an unprintable
character.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import InputError

DEEPEST = 16
DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", re.IGNORECASE)


class StrictLoader(yaml.SafeLoader):
    """The safe loader, which also checks every node before building it."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            refuse(f"the alias or anchor {event.anchor!r}; write out what it stands for", event)
        if event.tag is not None:
            refuse(f"the tag {event.tag!r}; leave it out", event)
        if isinstance(event, yaml.ScalarEvent) and not event.value.isprintable():
            refuse(f"{event.value[:80]!r} holds an unprintable character; remove it", event)
        if self.depth == DEEPEST:
            refuse(f"nested more than {DEEPEST} levels deep; reduce the nesting", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and not DECIMAL.fullmatch(node.value):  # 020 is 16, 1:30 is 90, 1_0 is 10
            refuse(f"{node.value!r} would be read as another number; write it with plain digits", node)
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                refuse("a key that is not a word; write `key: value`", key)
            if key.value in seen:
                refuse(f"the key {key.value!r} is given twice; keep one", key)
            seen.add(key.value)
        return node


def refuse(problem: str, place: yaml.Event | yaml.Node) -> None:
    """Raise the loader's error with the position of an event or a node."""
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises InputError naming the file, and the line if known."""
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:  # bytes that are not UTF-8
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a text; raises InputError naming `where`, and the line if known."""
    try:
        return StrictLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{where}: line {mark.line + 1}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 40 May
        raise InputError(f"{where}: not YAML: {' '.join(str(error).split())[:200]}") from error
