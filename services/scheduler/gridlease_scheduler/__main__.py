"""``python -m gridlease_scheduler``: serves until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from gridlease_kernel.faults import Fault
from gridlease_mesh import logs
from gridlease_mesh import settings as mesh_settings

from .bootstrap import serving
from .settings import Settings

_LOG = logging.getLogger("gridlease_scheduler")
_TURN_S = 0.001  # so soon the slow path's thread makes way for the loop that places


async def _run(settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        async with serving(settings) as failed:
            await failed
    except asyncio.CancelledError:
        _LOG.info("the scheduler stopped")


def main() -> int:
    """0 after a clean stop, 1 where it cannot start."""
    logs.set_up("scheduler")
    try:
        settings = mesh_settings.read(Settings, os.environ)
        logs.set_up("scheduler", level=settings.log_level)
        sys.setswitchinterval(_TURN_S)
        asyncio.run(_run(settings))
    except Fault as fault:
        _LOG.error("the scheduler cannot run: %s", fault, extra={"reason": fault.reason})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
