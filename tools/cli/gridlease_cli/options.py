"""Options that every command takes, wherever on the line they stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gridlease_kernel.faults import Invalid

FORMATS: Final = ("table", "json", "yaml")
HELP: Final = """Everywhere: -o, --format table|json|yaml (--json for short);
--endpoint HOST:PORT; --api-key KEY; --client-file FILE; --operator (use the operator's key of the
client file)."""
_VALUED: Final = {
    "-o": "format",
    "--format": "format",
    "--endpoint": "endpoint",
    "--api-key": "api_key",
    "--client-file": "client_file",
}


@dataclasses.dataclass
class Options:
    """Where to go, with which key, and how to answer."""

    environ: Mapping[str, str]
    format: str = "table"
    endpoint: str = ""
    api_key: str = ""
    client_file: str = ""
    operator: bool = False
    command: list[str] | None = None  # what stands after "--"

    @property
    def client_path(self) -> Path | None:
        return Path(self.client_file) if self.client_file else None


def hoist(arguments: Sequence[str], options: Options) -> list[str]:
    """Take the options out of the line, and what follows ``--``; the rest of the line.

    Raises:
        Invalid: OPTION_VALUE or UNKNOWN_FORMAT.
    """
    words = list(arguments)
    if "--" in words:
        at = words.index("--")
        words, options.command = words[:at], words[at + 1 :]
    rest: list[str] = []
    while words:
        word = words.pop(0)
        name, sign, value = word.partition("=")
        if word == "--operator":
            options.operator = True
        elif word == "--json":
            options.format = "json"
        elif name in _VALUED:
            if not sign:
                if not words:
                    raise _no_value(name)
                value = words.pop(0)
            setattr(options, _VALUED[name], value)
        else:
            rest.append(word)
    if options.format not in FORMATS:
        wrong, options.format = options.format, "table"
        raise Invalid(
            f"There is no format {wrong!r}.",
            reason="UNKNOWN_FORMAT",
            field="--format",
            remedy=f"Choose one of: {', '.join(FORMATS)}.",
        )
    return rest


def _no_value(name: str) -> Invalid:
    return Invalid(
        f"{name} needs a value.",
        reason="OPTION_VALUE",
        field=name,
        remedy="gridlease --help shows how.",
    )
