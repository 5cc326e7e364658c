"""A real agent in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gridlease_testkit.waiting import eventually


class Agent:
    """``python -m gridlease_agent`` over one state folder."""

    def __init__(self, state: Path, flags: Sequence[str] = (), **settings: str) -> None:
        self.state = state
        self._flags = ["--state", str(state), *flags]
        self.ready_file = state / "ready"
        self.log = state / "agent.log"
        self._settings = {
            "GRIDLEASE_RENEW_RETRY_MS": "300",
            "GRIDLEASE_GRACE_MS": "500",
            "GRIDLEASE_SLOW_TICK_MS": "500",
            "GRIDLEASE_READY_FILE": str(self.ready_file),
            **{f"GRIDLEASE_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return once it serves."""
        self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - its start does not block
                [sys.executable, "-m", "gridlease_agent", *self._flags],
                env={**os.environ, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await eventually(self._serves, 30.0, "the agent serves")
        except AssertionError as trouble:
            self.stop()
            raise AssertionError(self.log.read_text()) from trouble

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.ready_file.exists()

    @property
    def proc(self) -> Path:
        """What the kernel tells of its core, or of its only process."""
        assert self.process is not None
        record = self.state / "agent.json"
        pid = json.loads(record.read_text())["core"] if record.exists() else self.process.pid
        return Path(f"/proc/{pid}")

    def kill(self) -> None:
        """As ``kill -9`` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Asked to, then made to; its exit code."""
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(8.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def end_tasks(self) -> None:
        """Kill every keeper that is left; their guards take the sandboxes along."""
        for folder in (self.state / "leases").glob("*"):
            try:
                pid = int((folder / "shim.json").read_text().split('"pid": ')[1].split(",")[0])
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (OSError, IndexError, ValueError):
                continue
            if os.fsencode(folder) in command:
                os.kill(pid, signal.SIGKILL)
