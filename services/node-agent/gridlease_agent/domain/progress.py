"""What a task tells of itself: its newest checkpoint, and how its training or its service goes.

Its files are written by whoever wrote the task: every value is checked before it is passed on.
Unknown keys are ignored, so that a task may be newer than its node.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from gridlease_kernel.faults import Invalid

CHECKPOINT, PROGRESS = "checkpoint.json", "progress.json"
MAX_BYTES = 4096
_MAX_ID = 256  # letters; the wire's limit
_MAX_INT = 2**63 - 1
_COUNTS = ("steps", "step_ns", "batch_size", "steps_total")
_REALS = ("gradient_sqr", "gradient_var")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``id``: the task's own name for it. ``saved_ns``: Unix time at which it was told of."""

    id: str
    saved_ns: int


@dataclass(frozen=True, slots=True)
class Progress:
    """As the wire has it; 0 = not told. ``gradient_sqr``: squared norm; ``gradient_var``: variance
    of one sample's gradient. ``in_flight_milli``: requests in flight, in thousandths."""

    steps: int = 0
    step_ns: int = 0
    batch_size: int = 0
    gradient_sqr: float = 0.0
    gradient_var: float = 0.0
    steps_total: int = 0
    in_flight_milli: int = 0


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The newest that a task has told; None = nothing."""

    checkpoint: Checkpoint | None = None
    progress: Progress | None = None


def checkpoint(content: bytes, saved_ns: int) -> Checkpoint:
    """The checkpoint that ``checkpoint.json`` names.

    Raises:
        Invalid: TASK_REPORT_INVALID. What cannot be printed can be no variable of the next attempt.
    """
    name = _object(content).get("id")
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_ID or not name.isprintable():
        raise _invalid("id", f"a text of 1 to {_MAX_ID} printable letters")
    return Checkpoint(name, saved_ns)


def progress(content: bytes) -> Progress:
    """What ``progress.json`` tells; ``step_ms`` may stand for ``step_ns``.

    Raises:
        Invalid: TASK_REPORT_INVALID.
    """
    told = _object(content)
    values: dict[str, Any] = {key: _count(told, key) for key in _COUNTS if key in told}
    values |= {key: _real(told, key) for key in _REALS if key in told}
    if "step_ms" in told and "step_ns" not in told:
        values["step_ns"] = _scaled(told, "step_ms", 1_000_000)
    if "in_flight" in told:
        values["in_flight_milli"] = _scaled(told, "in_flight", 1000)
    return Progress(**values)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _invalid("", "one JSON object")
    return value


def _count(told: dict[str, Any], key: str) -> int:
    value = told[key]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT:
        return value
    raise _invalid(key, "a whole number, not below 0")


def _real(told: dict[str, Any], key: str) -> float:
    value = told[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and number >= 0:
            return number
    raise _invalid(key, "a finite number, not below 0")


def _scaled(told: dict[str, Any], key: str, factor: int) -> int:
    number = _real(told, key) * factor
    if number > _MAX_INT:
        raise _invalid(key, "a smaller number")
    return round(number)


def _invalid(key: str, wanted: str) -> Invalid:
    return Invalid(
        f"{key or 'The file'} must be {wanted}.",
        reason="TASK_REPORT_INVALID",
        field=key,
        remedy="Write another file beside it and rename it, so that it is never half there.",
    )
