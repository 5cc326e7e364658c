"""Sizes, durations, counts and money as people write them, parsed to whole numbers.

Each parser takes the text and the name of its field, and raises ``Invalid`` with a remedy that
shows a good value. K, M, G, T and P are powers of 1024, with or without "B" or "iB", as in every
container tool: 8GB, 8G and 8GiB are the same memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gridlease_kernel.faults import Invalid
from gridlease_kernel.money import MAX_NANO, NANO

_NUMBER: Final = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?", re.ASCII)
_SIZE: Final = re.compile(r"([0-9.]+)\s*(?:([kmgtp])(?:i?b)?|b)", re.IGNORECASE)
_POWER: Final = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_SPAN: Final = re.compile(r"(\d{1,12})(ms|s|m|h|d|w)", re.IGNORECASE | re.ASCII)
_SPAN_MS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_MAX_INT64: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Span:
    """A closed range of whole quantities; ``high`` 0 = no upper end."""

    low: int
    high: int = 0

    def __post_init__(self) -> None:
        assert self.low >= 0, self
        assert self.high == 0 or self.high >= self.low, self


def _scaled(text: str, scale: int) -> int | None:
    """``text`` (a decimal of at most nine places) times ``scale``; None if it is not whole."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    places = found.group(2) or ""
    whole = int(found.group(1) + places) * scale
    unit = 10 ** len(places)
    return None if whole % unit or whole // unit > _MAX_INT64 else whole // unit


def parse_size(text: str, field: str) -> int:
    """Bytes in "512MB", "1.5GiB", "80G" or "64KB".

    >>> parse_size("1.5GB", "memory")
    1610612736

    Raises:
        Invalid: BAD_SIZE.
    """
    found = _SIZE.fullmatch(text.strip())
    number = _NUMBER.fullmatch(found.group(1)) if found else None
    value = _MAX_INT64 + 1
    if found is not None and number is not None:
        # A fraction of a byte is cut off: 0.1GB has none that matters.
        places = number.group(2) or ""
        power = _POWER.get((found.group(2) or "").lower(), 0)
        value = (int(number.group(1) + places) << power) // 10 ** len(places)
    if value > _MAX_INT64:
        raise Invalid(
            f"{text!r} is not a size.",
            reason="BAD_SIZE",
            field=field,
            remedy="Write a number with a unit, such as 512MB, 8GB or 1.5TB.",
        )
    return value


def parse_duration(text: str | int, field: str) -> int:
    """Milliseconds in "90s", "5m", "2h", "1d" or "1h30m"; a bare number is seconds.

    >>> parse_duration("1h30m", "max_duration")
    5400000

    Raises:
        Invalid: BAD_DURATION.
    """
    words = str(text).strip().replace(" ", "")
    parts = _SPAN.findall(words)
    total = sum(int(number) * _SPAN_MS[unit.lower()] for number, unit in parts)
    if words.isascii() and words.isdigit() and len(words) <= 12:
        total = int(words) * 1_000
    elif not parts or "".join(number + unit for number, unit in parts) != words:
        total = -1
    if not 0 <= total <= _MAX_INT64:
        raise Invalid(
            f"{text!r} is not a duration.",
            reason="BAD_DURATION",
            field=field,
            remedy="Write a number with a unit, such as 90s, 5m, 2h or 1d.",
        )
    return total


def parse_money(text: str | int, field: str) -> int:
    """Nano-units in "1.50", "$2" or "0.000000001 USD".

    >>> parse_money("1.50", "budget")
    1500000000

    Raises:
        Invalid: BAD_MONEY.
    """
    words = str(text).strip()
    words = words.removeprefix("$").removesuffix("USD").removesuffix("usd").strip()
    nano = _scaled(words, NANO)
    if nano is None or nano > MAX_NANO:
        raise Invalid(
            f"{text!r} is not an amount of money.",
            reason="BAD_MONEY",
            field=field,
            remedy="Write an amount with at most nine decimals, such as 1.50.",
        )
    return nano


def parse_cores(text: str, field: str) -> int:
    """Thousandths of a CPU core in "4", "0.25" or "250m".

    >>> parse_cores("0.25", "cpu")
    250

    Raises:
        Invalid: BAD_CPU.
    """
    words = text.strip()
    milli = _scaled(words[:-1], 1) if words.endswith("m") else _scaled(words, 1_000)
    if milli is None:
        raise Invalid(
            f"{text!r} is not a number of CPU cores.",
            reason="BAD_CPU",
            field=field,
            remedy="Write a number of cores with at most three decimals, such as 4 or 0.25.",
        )
    return milli


def parse_count(text: str, field: str) -> int:
    """A whole number such as "8".

    Raises:
        Invalid: BAD_COUNT.
    """
    words = text.strip()
    if not (words.isascii() and words.isdigit() and len(words) <= 9):
        raise Invalid(
            f"{text!r} is not a whole number.",
            reason="BAD_COUNT",
            field=field,
            remedy="Write a whole number, such as 8.",
        )
    return int(words)


def parse_range(
    text: str, field: str, parse: Callable[[str, str], int], *, lowest: int = 0
) -> Span:
    """A range in "8GB" (exactly), "8GB..", "..16GB", "8GB..16GB" or "8GB+".

    Args:
        parse: Reads one end.
        lowest: The lower end of a range that names none.

    Raises:
        Invalid: BAD_RANGE, or what ``parse`` raises.
    """
    words = text.strip()
    if words.endswith("+"):
        return Span(parse(words[:-1], field))
    low_text, dots, high_text = words.partition("..")
    if not dots:
        value = parse(words, field)
        return Span(value, value)
    if not low_text.strip() and not high_text.strip():
        raise _bad_range(text, field, "names neither end")
    low = parse(low_text, field) if low_text.strip() else None
    high = parse(high_text, field) if high_text.strip() else 0
    if low is None:
        low = min(lowest, high)
    if high_text.strip() and high < low:
        raise _bad_range(text, field, "ends below its beginning")
    return Span(low, high)


def _bad_range(text: str, field: str, why: str) -> Invalid:
    return Invalid(
        f"The range {text!r} {why}.",
        reason="BAD_RANGE",
        field=field,
        remedy="Write it as 8.., ..16, 8..16 or 8+.",
    )
