"""Faults for people and for programs: one sentence and the remedy, or JSON; an exit code."""

from __future__ import annotations

import json
import sys
from typing import Final

from gridlease_kernel import faults
from gridlease_kernel.faults import Fault

from gridlease_cli.options import Options

JOB_FAILED: Final = 10
_CODES: Final[tuple[tuple[tuple[type[Fault], ...], int], ...]] = (
    ((faults.Invalid,), 3),
    ((faults.Missing,), 4),
    ((faults.Unauthenticated, faults.Forbidden), 5),
    ((faults.Conflict, faults.Exists, faults.Precondition), 6),
    ((faults.Exhausted,), 7),
    ((faults.Unreachable, faults.Late), 8),
)


def exit_code(fault: Fault) -> int:
    """The process's exit code for a fault, by its class."""
    return next((code for kinds, code in _CODES if isinstance(fault, kinds)), 1)


def tell(fault: Fault, options: Options) -> None:
    """Say on standard error what went wrong and what to do."""
    if options.format == "json":
        error = {
            "code": fault.code.name,
            "reason": fault.reason,
            "field": fault.field,
            "message": fault.message,
            "remedy": fault.remedy,
            "metadata": fault.metadata,
        }
        print(json.dumps({"error": error}), file=sys.stderr)
        return
    where = f"{fault.field}: " if fault.field and fault.field not in fault.message else ""
    text = f"gridlease: {where}{fault.message} {fault.remedy}".rstrip()
    print(clean(text), file=sys.stderr)


def clean(text: str) -> str:
    """``text`` without control characters: names of others must not drive a terminal."""
    return "".join(it if it.isprintable() or it == "\n" else "�" for it in text)
