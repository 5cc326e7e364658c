"""The audit: a row for each change before it is answered, and for each denial soon after."""

from __future__ import annotations

import asyncio
import logging

from gridlease_kernel.faults import Fault
from gridlease_mesh import trace

from gridlease_gateway.calls import Opening
from gridlease_gateway.domain.keys import Caller
from gridlease_gateway.ports import AuditLog, AuditRow

_LOG = logging.getLogger(__name__)
_WAITING_MAX = 10_000
_PAUSE_S = 0.5
_OK = "OK"


class Auditor:
    """Writes rows at once, or from a bounded queue where a denial must not wait."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._waiting: asyncio.Queue[AuditRow] = asyncio.Queue(_WAITING_MAX)

    async def keep(self, opening: Opening, caller: Caller, resource: str) -> None:
        """Keep the row of a change that has happened.

        Raises:
            Unreachable: it could not be kept; the caller retries with the same request_id.
        """
        await self._log.write(_row(opening, caller, resource, _OK))

    def note(self, opening: Opening, caller: Caller, resource: str, outcome: str) -> None:
        """Keep the row of a call that was refused or failed, soon."""
        row = _row(opening, caller, resource, outcome)
        try:
            self._waiting.put_nowait(row)
        except asyncio.QueueFull:
            _LOG.error("an audit row is lost: the database is away", extra={"row": str(row)})

    async def run(self) -> None:
        """Write what was noted, for as long as the service lives."""
        while True:
            row = await self._waiting.get()
            await self._write(row)
            self._waiting.task_done()

    async def drain(self) -> None:
        """Wait until what was noted is written."""
        await self._waiting.join()

    async def _write(self, row: AuditRow) -> None:
        while True:
            try:
                await self._log.write(row)
            except Fault as fault:
                _LOG.warning("the audit waits for the database: %s", fault.message)
                await asyncio.sleep(_PAUSE_S)
            else:
                return


def _row(opening: Opening, caller: Caller, resource: str, outcome: str) -> AuditRow:
    context = trace.current()
    return AuditRow(
        method=opening.method,
        key_id=caller.key_id,
        role=caller.role.value,
        tenant=caller.tenant,
        project=caller.project,
        resource=resource[:200].replace("\0", ""),
        outcome=outcome,
        peer=opening.peer[:200],
        trace_id=context.trace_id if context else "",
    )
