"""``python -m gridlease_billing``: serves until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from gridlease_kernel.faults import Fault
from gridlease_mesh import logs

from gridlease_billing.bootstrap import serving
from gridlease_billing.settings import Settings, load

_LOG = logging.getLogger("gridlease_billing")


async def _run(settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        async with serving(settings):
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        _LOG.info("billing stopped")


def main() -> int:
    """0 after a clean stop, 1 where it cannot start."""
    logs.set_up("billing")
    try:
        settings = load(os.environ)
        logs.set_up("billing", level=settings.log_level)
        asyncio.run(_run(settings))
    except Fault as fault:
        _LOG.error("billing cannot run: %s", fault, extra={"reason": fault.reason})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
