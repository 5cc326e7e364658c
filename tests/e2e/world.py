"""A whole platform as real processes, for tests that kill and cut."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from gridlease.type.v1 import job_pb2
from gridlease_agent.isolate.cgroups import cgroup_of
from gridlease_kernel.faults import Fault
from gridlease_sdk import Client, jobfile
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually, eventually_sync

ROOT = Path(__file__).resolve().parents[2]
ENDED = (
    job_pb2.JOB_STATE_SUCCEEDED,
    job_pb2.JOB_STATE_FAILED,
    job_pb2.JOB_STATE_CANCELLED,
)
# Short spans, so that a test sees a grant end; the proportions are those of the defaults.
QUICK = {
    "GRIDLEASE_GRANT_MS": "6000",
    "GRIDLEASE_RENEW_RETRY_MS": "500",
    "GRIDLEASE_GRACE_MS": "1500",
    "GRIDLEASE_NOTICE_MS": "1500",
    "GRIDLEASE_HOLD_TTL_MS": "10000",
    "GRIDLEASE_SLOW_TICK_MS": "1000",
    "GRIDLEASE_DISCONNECTED_AFTER_MS": "3000",
    "GRIDLEASE_LOST_AFTER_MS": "4000",
    "GRIDLEASE_KILL_MARGIN_MS": "1000",
    "GRIDLEASE_CLOCK_STEP_MARGIN_MS": "1000",
}


class World:
    """``./dev up`` on a folder of its own, with its keys and its processes at hand."""

    def __init__(self, state: Path, *words: str, timing: dict[str, str] | None = None) -> None:
        self.state = state
        self.port = free_port()
        self._words = words
        self._timing = timing or {}
        self._process: subprocess.Popen[bytes] | None = None

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        command = [sys.executable, "-m", "gridlease_launch", "up", "--brief"]
        command += ["--state", str(self.state), "--port", str(self.port), *self._words]
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "up.out").open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **self._timing}
            )
        eventually_sync(self._ready, 90.0, "the platform is up")

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self.state / "up.out").read_text())
        try:
            record = json.loads((self.state / "up.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(record["ready"])

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(40)
            self._process = None

    # -- processes -------------------------------------------------------------------------

    def pid(self, part: str) -> int | None:
        """Of a live part; None while it is down."""
        paths = {
            "nats": self.state / "nats" / "nats.pid",
            "postgres": self.state / "postgres" / "data" / "postmaster.pid",
        }
        path = paths.get(part, self.state / "run" / f"{part}.ready")
        try:
            pid = int(path.read_text().split()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return None
        return pid

    def kill(self, part: str) -> int:
        """kill -9; the pid that it had."""
        pid = self.pid(part)
        assert pid is not None, part
        os.kill(pid, signal.SIGKILL)
        return pid

    async def back(self, part: str, old: int, timeout_s: float = 40.0) -> None:
        """Wait until a killed part serves again."""
        await eventually(lambda: self.pid(part) not in (None, old), timeout_s, f"{part} is back")

    def shims(self) -> list[int]:
        """Processes that keep a task of this platform."""
        marker = str(self.state / "node" / "leases").encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and marker in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def cgroups(self) -> list[Path]:
        """Groups of this platform's leases that still stand."""
        leases = self.state / "node" / "leases"
        names = {cgroup_of(folder).rpartition("/")[2] for folder in leases.iterdir()}
        found = Path("/sys/fs/cgroup").glob("**/gridlease/*")
        return [path for path in found if path.name in names]

    # -- clients ---------------------------------------------------------------------------

    def keys(self) -> dict[str, str]:
        return dict(json.loads((self.state / "client.json").read_text()))

    @contextlib.asynccontextmanager
    async def tenant(self) -> AsyncIterator[Client]:
        async with Client.connect(f"127.0.0.1:{self.port}", self.keys()["tenant_key"]) as client:
            yield client

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Client]:
        async with Client.connect(f"127.0.0.1:{self.port}", self.keys()["operator_key"]) as client:
            yield client


def draft(*commands: str, **values: object) -> jobfile.Draft:
    """A small job for this host."""
    resources = {"cpu": 0.25, "memory": "128MB", "disk": "64MB"}
    return jobfile.read(
        {
            "type": "task",
            "name": "e2e",
            "commands": list(commands),
            "resources": resources,
            **values,
        }
    )


async def state_is(client: Client, name: str, *states: int, timeout_s: float = 60.0) -> job_pb2.Job:
    """The job, once it stands in one of these states."""

    async def stands() -> job_pb2.Job | None:
        try:
            job = await client.get_job(name)
        except Fault:
            return None
        return job if job.state in states else None

    found = await eventually(stands, timeout_s, f"{name} is in {states}")
    assert found is not None
    return found


async def prints(client: Client, name: str, text: bytes, timeout_s: float = 30.0) -> None:
    """Wait until the job's output holds ``text``."""

    async def seen() -> bool:
        try:
            return text in b"".join([piece async for piece in client.logs(name)])
        except Fault:
            return False

    await eventually(seen, timeout_s, f"{name} prints {text!r}")
