"""YAML and JSON as job files need them: numbers with a point stay text, no key comes twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml
from gridlease_kernel.faults import Invalid

_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_BOOL: Final = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_NULL: Final = re.compile(r"(?:~|null|Null|NULL|)\Z")


class _Loader(yaml.SafeLoader):
    """Knows null, true, false and plain integers; 1.10, 1:30 and dates stay as written."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            name = str(getattr(key, "value", ""))
            if isinstance(key, yaml.ScalarNode) and name in seen:
                raise _broken(f"the key {name[:80]!r} comes twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


def read(content: bytes) -> Mapping[str, Any]:
    """The mapping in a file.

    Raises:
        Invalid: NOT_UTF8, BROKEN_YAML with the line, or NOT_A_MAPPING.
    """
    try:
        words = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Invalid(
            f"The file is not UTF-8: line {line} holds a byte {content[error.start]:#04x}.",
            reason="NOT_UTF8",
            field="file",
            remedy="Save it as UTF-8.",
        ) from error
    try:
        found = yaml.load(words, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        said = getattr(error, "problem", None) or "it cannot be read"
        raise _broken(str(said), mark) from error
    except (RecursionError, ValueError) as error:
        raise _broken("it is nested too deeply or holds an odd value", None) from error
    if not isinstance(found, dict):
        raise Invalid(
            "The file holds no keys.",
            reason="NOT_A_MAPPING",
            field="file",
            remedy='Begin with lines such as: name: train, commands: ["python train.py"].',
        )
    return found


def _broken(said: str, mark: Any) -> Invalid:
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return Invalid(
        f"The file is not YAML: {where}{said}.",
        reason="BROKEN_YAML",
        field=f"file:{mark.line + 1}" if mark is not None else "file",
        remedy="Correct that line; indent with spaces.",
    )
