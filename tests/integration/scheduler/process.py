"""The scheduler in a process of its own, so that it can be killed."""

import contextlib
import os
import subprocess
import sys

from gridlease_testkit.waiting import eventually_sync


@contextlib.contextmanager
def scheduler_process(world, *, wait=True, **more):
    """Runs it, serving unless told not to wait; kills it at the end if it still lives. ``more``:
    settings by name."""
    ready = world.folder / "ready"
    settings = world.settings
    environ = {
        "GRIDLEASE_NATS_URL": settings.nats_url,
        "GRIDLEASE_NATS_CREDS": str(settings.nats_creds),
        "GRIDLEASE_NATS_ACCOUNT_SEED": str(settings.nats_account_seed),
        "GRIDLEASE_POSTGRES_DSN": settings.postgres_dsn,
        "GRIDLEASE_SUBJECT_PREFIX": settings.subject_prefix,
        "GRIDLEASE_SLOW_TICK_MS": "300",
        "GRIDLEASE_READY_FILE": str(ready),
        "PATH": os.environ["PATH"],
    } | {f"GRIDLEASE_{name.upper()}": str(value) for name, value in more.items()}
    log = world.folder / "scheduler.log"
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "gridlease_scheduler"], env=environ, stderr=stderr
        )

    def served():
        assert process.poll() is None, log.read_text()
        return ready.exists()

    try:
        if wait:
            eventually_sync(served, 30, "the scheduler serves")
            assert int(ready.read_text()) == process.pid
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
