"""A planted bug, and who looks for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

BILLING = "services/billing/gridlease_billing/"
DOMAIN = BILLING + "domain/"
TABLES = BILLING + "migrations/"
SEGMENT = DOMAIN + "segment.py"
GRANT = DOMAIN + "grant.py"
SETTLEMENT = DOMAIN + "settlement.py"
TICK = DOMAIN + "tick.py"
LEASES = BILLING + "adapters/lease_store.py"
BOOKS = BILLING + "adapters/ledger_store.py"
MONEY = "libs/kernel/gridlease_kernel/money.py"
VERIFY = "tools/verify/gridlease_verify/bill.py"


@dataclass(frozen=True, slots=True)
class Bug:
    """``old`` stands in ``path`` once (or ``times``); with ``new`` in its place, a test fails.

    ``tests``: who looks, the likeliest first: "room" is all of test_room.py, "room:some_words" its
    one test whose name begins so.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    quick: bool = False  # one of the few that the slow suite tries
    times: int = 1


_ROOMS = ("tests/integration/billing", "tests/property/billing", "tests/unit/billing",
          "tests/unit/protocol", "tests/sim")  # fmt: skip


def named(test: str, root: Path) -> str:
    """pytest's name of a bug's test.

    Raises:
        ValueError: Where there is none, or more than one.
    """
    room, _, words = test.partition(":")
    files = [it for folder in _ROOMS if (it := root / folder / f"test_{room}.py").is_file()]
    if len(files) != 1:
        raise ValueError(f"{test}: {len(files)} files are named so")
    path = files[0].relative_to(root).as_posix()
    if not words:
        return path
    text = files[0].read_text("utf-8")
    known = re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)
    found = [it for it in known if it == f"test_{words}"]
    found = found or [it for it in known if it.startswith(f"test_{words}")]
    if len(found) != 1:
        raise ValueError(f"{test}: {len(found)} tests begin so")
    return f"{path}::{found[0]}"
