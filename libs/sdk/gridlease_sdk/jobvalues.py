"""Values of a job file: the type that a key wants, or a refusal that says so."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from gridlease_kernel.faults import Invalid


def known_keys(
    values: Mapping[Any, Any], known: Collection[str], aliases: Mapping[str, str], where: str
) -> dict[str, Any]:
    """The values under their own names; an absent one (null) is left out.

    Raises:
        Invalid: UNKNOWN_KEY with the nearest known name, or DUPLICATE_KEY.
    """
    found: dict[str, Any] = {}
    for given, value in values.items():
        key = aliases.get(str(given), str(given))
        field = f"{where}{given}"[:200]
        if key not in known:
            near = difflib.get_close_matches(str(given), [*known, *aliases], n=1, cutoff=0.5)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise Invalid(
                f"There is no key {str(given)[:80]!r}.",
                reason="UNKNOWN_KEY",
                field=field,
                remedy=f"{meant}Known: {', '.join(sorted(known))}.",
            )
        if key in found:
            raise Invalid(
                f"{key!r} is given twice, once by another name.",
                reason="DUPLICATE_KEY",
                field=field,
                remedy="Keep one of them.",
            )
        if value is not None:
            found[key] = value
    return found


def text(value: Any, field: str) -> str:
    """A string that may travel.

    Raises:
        Invalid: WRONG_TYPE or BAD_TEXT.
    """
    if not isinstance(value, str):
        raise wrong_type(field, "text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _bad_text(field) from error
    if "\0" in value:
        raise _bad_text(field)
    return value


def plain(value: Any, field: str) -> str:
    """A string or a number, as text.

    Raises:
        Invalid: WRONG_TYPE or BAD_TEXT.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text(value, field)


def texts(value: Any, field: str) -> list[str]:
    """One string, or a list of them.

    Raises:
        Invalid: WRONG_TYPE or BAD_TEXT.
    """
    if isinstance(value, str):
        return [text(value, field)]
    if not isinstance(value, list):
        raise wrong_type(field, "a list of texts", value)
    return [text(it, f"{field}[{at}]") for at, it in enumerate(value)]


def integer(value: Any, field: str, high: int) -> int:
    """A whole number from 0 to ``high``.

    Raises:
        Invalid: WRONG_TYPE or OUT_OF_RANGE.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(field, "a whole number", value)
    if not 0 <= value <= high:
        raise Invalid(
            f"{field} must lie between 0 and {high}.",
            reason="OUT_OF_RANGE",
            field=field,
            remedy=f"Write a whole number from 0 to {high}.",
        )
    return value


def choice(value: Any, field: str, values: Mapping[str, int]) -> int:
    """One of the named values.

    Raises:
        Invalid: WRONG_TYPE or UNKNOWN_VALUE.
    """
    name = text(value, field).lower().replace("_", "-")
    if name not in values:
        raise Invalid(
            f"There is no {field} {name[:80]!r}.",
            reason="UNKNOWN_VALUE",
            field=field,
            remedy=f"Choose one of: {', '.join(values)}.",
        )
    return values[name]


def assignment(value: Any, field: str) -> tuple[str, str]:
    """Name and value of "NAME=VALUE".

    Raises:
        Invalid: BAD_ASSIGNMENT.
    """
    name, sign, rest = text(value, field).partition("=")
    if not sign or not name:
        raise Invalid(
            "An environment variable is written NAME=VALUE.",
            reason="BAD_ASSIGNMENT",
            field=field,
            remedy="Write it as NAME=VALUE.",
        )
    return name, rest


def wrong_type(field: str, wanted: str, value: Any) -> Invalid:
    """``field`` wants something else than what ``value`` is."""
    kinds = {dict: "a mapping", list: "a list", bool: "a yes or no", int: "a number"}
    have = kinds.get(type(value), type(value).__name__)
    quotes = " Put it in quotes." if isinstance(value, (bool, int)) and "text" in wanted else ""
    return Invalid(
        f"{field} is {have}; it must be {wanted}.",
        reason="WRONG_TYPE",
        field=field,
        remedy=f"Write {wanted}.{quotes}",
    )


def _bad_text(field: str) -> Invalid:
    return Invalid(
        f"{field} holds a character that cannot travel.",
        reason="BAD_TEXT",
        field=field,
        remedy="Take out zero characters and lone surrogates.",
    )
