"""One call at the door: who makes it, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from gridlease_gateway.domain.keys import Caller


@dataclass(frozen=True, slots=True)
class Opening:
    """How a call came in, on whatever front end."""

    method: str  # "JobService.CreateJob"
    metadata: Mapping[str, str]
    peer: str
    left_s: float | None = None  # the caller's own deadline; None = it brought none


@dataclass(frozen=True, slots=True)
class Call:
    """An admitted call."""

    caller: Caller
    opening: Opening
    deadline_s: float = field(default=0.0)  # of the event loop's clock

    def left_s(self) -> float:
        """Seconds that remain, never below zero."""
        return max(0.0, self.deadline_s - asyncio.get_running_loop().time())
