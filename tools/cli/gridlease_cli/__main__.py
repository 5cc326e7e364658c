"""``gridlease``, and ``python -m gridlease_cli``.

Exit codes: 0 done, 1 other trouble, 2 usage, 3 invalid, 4 not found, 5 who are you or not
allowed, 6 in the way of another or of the state, 7 a limit is reached, 8 unreachable or late,
10 the job that was waited for did not succeed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from gridlease_kernel.faults import Fault

from gridlease_cli import (
    access,
    books,
    capacity,
    contracts,
    costs,
    energy,
    fleet,
    invoices,
    jobs,
    links,
    money,
    plans,
    pricebook,
    receipts,
    receivables,
    reports,
    retention,
    sessions,
    simulate,
    taxes,
)
from gridlease_cli.app import app
from gridlease_cli.options import Options, hoist
from gridlease_cli.trouble import exit_code, tell

for room in (
    jobs,
    costs,
    receipts,
    sessions,
    plans,
    fleet,
    capacity,
    links,
    money,
    pricebook,
    invoices,
    receivables,
    taxes,
    contracts,
    energy,
    reports,
    books,
    retention,
    access,
    simulate,
):
    room.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code."""
    options = Options(environ=os.environ)
    try:
        rest = hoist(arguments, options)
        command: Any = typer.main.get_command(app)
        code = command.main(rest, prog_name="gridlease", standalone_mode=False, obj=options)
    except Fault as fault:
        tell(fault, options)
        return exit_code(fault)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, which is its right; nothing more may be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # What the parser of the command line raises comes in two makes: click's and typer's own.
        shown = getattr(error, "show", None)
        if shown is None:
            if type(error).__name__ == "Abort":
                return 130
            raise
        shown()
        return int(getattr(error, "exit_code", 2))
    return int(code or 0)


if __name__ == "__main__":
    main()
