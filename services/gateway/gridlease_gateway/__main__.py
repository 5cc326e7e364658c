"""``python -m gridlease_gateway``: settings from the environment, logs on standard error.

With ``--new-keys`` it serves nothing, but writes new first keys to GRIDLEASE_CLIENT_FILE.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from gridlease_kernel.faults import Fault
from gridlease_mesh import logs

from gridlease_gateway.bootstrap import new_keys, serve
from gridlease_gateway.settings import load

_LOG = logging.getLogger(__name__)


def main() -> int:
    """Serve until told to stop; 1 where it cannot start."""
    logs.set_up("gateway")
    try:
        settings = load(os.environ)
        logs.set_up("gateway", level=settings.log_level)
        asyncio.run(new_keys(settings) if "--new-keys" in sys.argv[1:] else serve(settings))
    except Fault as fault:
        _LOG.critical("%s", fault, extra={"reason": fault.reason, "field": fault.field})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
