"""Values out of a parsed TOML table or a CSV row; each mistake comes with its field and cure.

Money becomes nano-units, spans milliseconds, ratios thousandths: whole numbers from here on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import parse_cores, parse_duration, parse_money, parse_size

MOST: Final = 10**9  # of anything that is counted
_T = TypeVar("_T")


def wrong(message: str, *, reason: str, field: str, remedy: str) -> Invalid:
    """One mistake of the input."""
    return Invalid(message, reason=reason, field=field, remedy=remedy)


def nearest(name: str, known: Iterable[str]) -> str:
    """``Did you mean ...?`` with the names nearest to one, or which there are."""
    names = sorted(known)
    by_lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=2, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(by_lower[each] for each in close)}?"
    return f"Known: {', '.join(names[:12])}." if names else "Take it out."


def whole(value: object, field: str, *, least: int = 0, most: int = MOST) -> int:
    """A whole number, written as one or as text.

    Raises:
        Invalid: BAD_NUMBER.
    """
    text = str(value).strip()
    found = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
    if isinstance(value, bool) or not least <= found <= most:
        raise wrong(
            f"{value!r} is not a whole number from {least} to {most}.",
            reason="BAD_NUMBER",
            field=field,
            remedy=f"Write a whole number such as {max(least, 1)}.",
        )
    return found


def milli(value: object, field: str, *, least: int = 0, most: int = MOST) -> int:
    """Thousandths of a number with at most three decimals.

    Raises:
        Invalid: BAD_NUMBER.
    """
    try:
        found = -1 if isinstance(value, bool) else parse_cores(str(value), field)
    except Invalid:
        found = -1
    if not least <= found <= most:
        raise wrong(
            f"{value!r} is not a number from {least / 1_000:g} to {most / 1_000:g}.",
            reason="BAD_NUMBER",
            field=field,
            remedy="Write a number with at most three decimals, such as 1.25.",
        )
    return found


def seconds_ms(value: str, field: str) -> int:
    """Milliseconds in a number of seconds such as 12 or 978.3.

    Raises:
        Invalid: BAD_SECONDS.
    """
    whole_part, _, places = value.strip().partition(".")
    digits = whole_part + places
    if not (digits.isascii() and digits.isdigit() and len(whole_part) <= 12):
        raise wrong(
            f"{value!r} is not a number of seconds.",
            reason="BAD_SECONDS",
            field=field,
            remedy="Write seconds, not negative, such as 3600 or 978.3.",
        )
    return int(whole_part or 0) * 1_000 + int((places + "000")[:3])


class Table:
    """One table of a TOML file: every key is read once, and what nobody reads is a mistake."""

    def __init__(self, values: object, path: str) -> None:
        if not isinstance(values, dict):
            raise wrong(
                "It must be a table.",
                reason="NOT_A_TABLE",
                field=path,
                remedy=f"Write [{path}] on a line of its own, and its keys below.",
            )
        self._values: Mapping[str, Any] = values
        self.path = path
        self._read: set[str] = set()

    def field(self, key: str) -> str:
        """The path of a key, for faults."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Is it written down?"""
        return key in self._values

    def raw(self, key: str, default: Any = None) -> Any:
        """Whatever stands there."""
        self._read.add(key)
        return self._values.get(key, default)

    def keys(self) -> tuple[str, ...]:
        """All keys that are written down."""
        return tuple(self._values)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default it must be there.

        Raises:
            Invalid: FIELD_MISSING or BAD_TEXT.
        """
        value = self._given(key, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise wrong(
                f"{value!r} is not a text.",
                reason="BAD_TEXT",
                field=self.field(key),
                remedy='Write it in quotes: "like this".',
            )
        return value

    def whole(
        self, key: str, default: int | None = None, *, least: int = 0, most: int = MOST
    ) -> int:
        """A whole number."""
        return whole(self._given(key, default), self.field(key), least=least, most=most)

    def milli(
        self, key: str, default: int | None = None, *, least: int = 0, most: int = MOST
    ) -> int:
        """Thousandths of a number; the default is in thousandths already."""
        if default is not None and not self.has(key):
            return default
        return milli(self._given(key, None), self.field(key), least=least, most=most)

    def cores(self, key: str, default: int) -> int:
        """Thousandths of CPU cores."""
        return self._parsed(key, default, parse_cores)

    def size(self, key: str, default: int) -> int:
        """Bytes."""
        return self._parsed(key, default, parse_size)

    def money(self, key: str, default: int | None = None) -> int:
        """Nano-units."""
        return self._parsed(key, default, parse_money)

    def duration_ms(self, key: str, default: int | None = None) -> int:
        """Milliseconds."""
        return self._parsed(key, default, parse_duration)

    def hourly(self, key: str, parse: Callable[[str, str], int]) -> tuple[int, ...]:
        """One value for all hours, or 24: one for each hour of the day (UTC).

        Raises:
            Invalid: NOT_24_HOURS, or what ``parse`` raises.
        """
        value = self.raw(key)
        if value is None:
            return ()
        values = value if isinstance(value, list) else [value]
        if len(values) not in (1, 24):
            raise wrong(
                f"It lists {len(values)} values.",
                reason="NOT_24_HOURS",
                field=self.field(key),
                remedy="Write one value for all hours, or 24: one an hour of the day, in UTC.",
            )
        return tuple(parse(str(each), self.field(key)) for each in values)

    def tables(self, key: str) -> list[Table]:
        """The tables of ``[[key]]``.

        Raises:
            Invalid: NOT_A_LIST or NOT_A_TABLE.
        """
        value = self.raw(key, [])
        if not isinstance(value, list):
            raise wrong(
                "It must be a list of tables.",
                reason="NOT_A_LIST",
                field=self.field(key),
                remedy=f"Write [[{key}]], with two brackets, above each.",
            )
        return [Table(each, f"{key}[{at}]") for at, each in enumerate(value)]

    def end(self, *, also: Iterable[str] = ()) -> None:
        """Everything has been read.

        Raises:
            Invalid: UNKNOWN_FIELD.
        """
        left = [key for key in self._values if key not in self._read]
        if left:
            raise wrong(
                f"There is no field {left[0]!r} here.",
                reason="UNKNOWN_FIELD",
                field=self.field(left[0]),
                remedy=nearest(left[0], self._read | set(also)),
            )

    def _parsed(self, key: str, default: int | None, parse: Callable[[str, str], int]) -> int:
        if default is not None and not self.has(key):
            return default
        return parse(str(self._given(key, None)), self.field(key))

    def _given(self, key: str, default: _T | None) -> _T | Any:
        value = self.raw(key, default)
        if value is None:
            raise wrong(
                "It is missing.",
                reason="FIELD_MISSING",
                field=self.field(key),
                remedy="`gridlease simulate --example` prints a whole file with every field.",
            )
        return value
