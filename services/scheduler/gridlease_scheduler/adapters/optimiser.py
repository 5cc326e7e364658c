"""The optimiser as a child process: started when asked, bounded in time, replaced when lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import sys
from typing import Any

from gridlease_kernel.faults import Unreachable

from gridlease_scheduler.domain.slow.advice import Problem, Solution

_LOG = logging.getLogger(__name__)
_LINE_BYTES = 8 * 2**20
_STOP_S = 1.0


class ChildOptimiser:
    """``ports.Optimiser``."""

    def __init__(self, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def solve(self, problem: Problem) -> Solution:
        """The answer within the time given.

        Raises:
            Unreachable: OPTIMISER_SILENT; the child is ended, the next call starts another.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._ask(problem)
            except (OSError, TimeoutError, ValueError, EOFError) as trouble:
                await self.close()
                raise Unreachable(
                    f"The optimiser gave no answer: {type(trouble).__name__} {trouble}".rstrip(),
                    reason="OPTIMISER_SILENT",
                    remedy="Placement goes on without its advice; it is asked again later.",
                ) from trouble
        return Solution(
            tuple((key, chip, devices) for key, chip, devices in answer["devices"]),
            tuple((chip, price) for chip, price in answer["prices"]),
        )

    async def _ask(self, problem: Problem) -> dict[str, Any]:
        child = await self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(dataclasses.asdict(problem)).encode() + b"\n")
        await child.stdin.drain()
        line = await child.stdout.readline()
        if not line:
            raise EOFError("it ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gridlease_scheduler.optimiser",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
            )
        return self._child

    async def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), _STOP_S)
