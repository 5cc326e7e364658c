"""The state folder: where everything of one platform lies, and who holds it.

state/up.json        who supervises, since when, where the door is     state/client.json  keys
state/postgres/      the database        state/nats/     the broker and its keys
state/node/          this host's agent   state/fleet/    emulated nodes
state/bundles/       uploaded files      state/logs/     what each part says
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Precondition
from gridlease_store.processes import Process, process_at


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who holds a state folder."""

    pid: int
    endpoint: str
    ready: bool


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The places inside one state folder."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "up.json"

    @property
    def client_file(self) -> Path:
        return self.root / "client.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    def log(self, part: str) -> Path:
        """What a part says."""
        return self.logs / f"{part}.log"

    def make(self) -> None:
        """Create what is missing.

        Raises:
            Precondition: STATE_FOLDER when the folder cannot be written.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("logs", "run", "bundles"):
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Precondition(
                f"The state folder {self.root} cannot be written: {error.strerror}.",
                reason="STATE_FOLDER",
                field="--state",
                remedy="Choose another with --state DIR, or free some disk.",
            ) from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process, so that two supervisors never share it.

        Raises:
            Precondition: ALREADY_UP when another one holds it.
        """
        with (self.root / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                other = self.supervisor()
                raise Precondition(
                    f"The platform already runs on {self.root}"
                    + (f" (pid {other.pid})." if other else "."),
                    reason="ALREADY_UP",
                    field="--state",
                    remedy="Use it as it is, stop it with ./dev down, or choose another --state.",
                ) from error
            yield

    def supervisor(self) -> Supervisor | None:
        """Who holds the folder by its own record; None where that process is gone."""
        try:
            facts = json.loads(self.record.read_text(encoding="utf-8"))
            found = Supervisor(int(facts["pid"]), str(facts["endpoint"]), bool(facts["ready"]))
            recorded = Process(found.pid, int(facts["start_ticks"]))
        except (OSError, ValueError, KeyError):
            return None
        # A pid alone may be another's by now, and ./dev down signals it.
        return found if process_at(found.pid) == recorded else None

    def write_supervisor(self, supervisor: Supervisor) -> None:
        """Record who holds the folder, in one step."""
        part = self.record.with_suffix(".part")
        process = process_at(supervisor.pid)
        assert process is not None, supervisor
        facts = {
            "pid": supervisor.pid,
            "start_ticks": process.start_ticks,
            "endpoint": supervisor.endpoint,
            "ready": supervisor.ready,
        }
        part.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        part.rename(self.record)

    def forget_supervisor(self) -> None:
        """The folder is free again."""
        self.record.unlink(missing_ok=True)
