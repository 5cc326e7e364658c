"""Settings of a service: a frozen dataclass, read from ``GRIDLEASE_*`` variables.

@dataclass(frozen=True, slots=True)
class Settings:
    nats_url: str
    grant_s: int = 120

settings = read(Settings, os.environ)      # GRIDLEASE_NATS_URL, GRIDLEASE_GRANT_S
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from gridlease_kernel.faults import Invalid

PREFIX = "GRIDLEASE_"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})

S = TypeVar("S")


def read(kind: type[S], environ: Mapping[str, str], prefix: str = PREFIX) -> S:
    """The settings in ``environ``; a field without a default must be there.

    Raises:
        Invalid: a variable is missing or malformed; the field is the variable's name.
    """
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        variable = prefix + field.name.upper()
        text = environ.get(variable)
        if text is not None:
            values[field.name] = _parse(variable, text, hints[field.name])
        elif _required(field):
            raise Invalid(
                f"{variable} is not set.",
                reason="SETTING_MISSING",
                field=variable,
                remedy="Set it, or start through the supervisor, which does.",
            )
    return kind(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    none = dataclasses.MISSING
    return field.init and field.default is none and field.default_factory is none


def _parse(variable: str, text: str, hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        assert len(inner) == 1, f"{variable}: only Optional unions"
        return None if text == "" else _parse(variable, text, inner[0])
    try:
        if hint is bool:
            return _boolean(text)
        assert hint in (str, int, float, Path), f"{variable}: cannot read a {hint}"
        return hint(text)
    except ValueError as error:
        raise Invalid(
            f"{variable}={text!r} is not a {hint.__name__}.",
            reason="SETTING_MALFORMED",
            field=variable,
            remedy="Correct the variable and start again.",
        ) from error


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError(text)
    return lowered in _TRUE
