"""What a task asks for, as people write it: the accelerator string of dstack and SkyPilot.

``A100:80GB:8``, ``nvidia:24GB..``, ``40GB..80GB:2..8``, ``A10G,A100``, ``H100:8``. Parts stand
between colons in any order: a vendor, names (which begin with a letter), memory (which has a
unit), a count (which has none). Source: dstack's resources.gpu.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import Span, parse_count, parse_range, parse_size

VENDORS: Final = frozenset(
    {"nvidia", "amd", "intel", "google", "xilinx", "tenstorrent", "qualcomm", "huawei"}
)
ONE: Final = Span(1, 1)
MAX_COUNT: Final = 1_024
_CHIP: Final = re.compile(r"[A-Za-z][A-Za-z0-9._+-]{0,63}")
_COUNT: Final = re.compile(r"[0-9.+ ]+")
_MAX_CHIPS: Final = 16
_REMEDY: Final = "Write it as NAME:MEMORY:COUNT, such as A100:80GB:8, nvidia:24GB.. or H100:2..8."


@dataclass(frozen=True, slots=True)
class AcceleratorAsk:
    """Any of ``chips`` (empty = any chip) that meets the rest."""

    chips: tuple[str, ...] = ()
    vendor: str = ""
    memory_bytes: Span | None = None
    count: Span = ONE


def parse_accelerator(text: str, field: str = "resources.gpu") -> AcceleratorAsk:
    """The request in a string such as ``A100:80GB:8``.

    >>> parse_accelerator("A10G,A100:2").chips
    ('A10G', 'A100')

    Raises:
        Invalid: BAD_GPU, or what a part's own parser raises.
    """
    found: dict[str, str] = {}
    for part in text.split(":"):
        words = part.strip()
        kind = _kind(words, text, field)
        if kind in found:
            raise _bad(f"{text!r} names its {kind} twice.", field)
        found[kind] = words
    memory = found.get("memory")
    count = parse_range(found.get("count", "1"), field, parse_count, lowest=1)
    return AcceleratorAsk(
        chips=parse_chips(found.get("name", ""), field),
        vendor=found.get("vendor", "").lower(),
        memory_bytes=parse_range(memory, field, parse_size) if memory else None,
        count=check_count(count, field),
    )


def parse_chips(text: str, field: str) -> tuple[str, ...]:
    """Chip names between commas; empty text = none.

    Raises:
        Invalid: BAD_GPU.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for name in names:
        if not _CHIP.fullmatch(name):
            raise _bad(f"{name!r} is not the name of a chip.", field)
    if len(names) > _MAX_CHIPS:
        raise _bad(f"More than {_MAX_CHIPS} chips are named.", field)
    return tuple(names)


def check_count(count: Span, field: str) -> Span:
    """``count``, if a node could have so many devices.

    Raises:
        Invalid: BAD_GPU_COUNT.
    """
    if count.low < 1 or count.low > MAX_COUNT or count.high > MAX_COUNT:
        raise Invalid(
            f"The count of devices must lie between 1 and {MAX_COUNT}.",
            reason="BAD_GPU_COUNT",
            field=field,
            remedy="Leave the GPU out for a job on CPUs; a name begins with a letter (RTX4090).",
        )
    return count


def _kind(words: str, text: str, field: str) -> str:
    if words.lower() in VENDORS:
        return "vendor"
    if words[:1].isascii() and words[:1].isalpha():
        return "name"
    if _COUNT.fullmatch(words):
        return "count"
    if words[:1].isdigit() or words.startswith("."):
        return "memory"
    raise _bad(f"{text!r} has a part {words!r} that is no name, memory or count.", field)


def _bad(message: str, field: str) -> Invalid:
    return Invalid(message, reason="BAD_GPU", field=field, remedy=_REMEDY)
