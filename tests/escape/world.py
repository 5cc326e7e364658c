"""What there is to steal: a host's process, sockets and files, and another lease at work.

Runs on the host of the tests and, unchanged, as the whole node of a virtual machine: standard
library, the agent and the test kit's waiting only.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridlease_agent import shim
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import Mount, SandboxSpec, uid_base
from gridlease_agent.sandbox import Deadline, Exited, Sandboxes
from gridlease_testkit.waiting import eventually_sync

from tests.escape.probes import Probe, load

BATCH = Path(__file__).with_name("batch.py")
PYTHON = "/usr/bin/python3"
MIB = 1 << 20
SECRET = "the-neighbours-secret"
AGENT_MARK = "GRIDLEASE_TEST_MARK"
SLOT = 30_000  # far from the slots that other tests' sandboxes use
_VICTIM = """
import ctypes, signal, socket
open("secret", "w").write(%(secret)r)
for name in ("/tmp/victim", "/dev/shm/victim"):
    open(name, "w").write(%(secret)r)
libc = ctypes.CDLL(None)
libc.shmget(0x6c656173, 4096, 0o1666)
libc.syscall(%(mq_open)d, b"victim", 0o102, 0o666, None)
server = socket.create_server(("127.0.0.1", 7117))
local = socket.socket(socket.AF_UNIX); local.bind("\\0gridlease-victim"); local.listen()
print("up", flush=True)
signal.pause()
"""


@dataclass
class World:
    """One node with its victim; ``attack`` runs the table in a sandbox beside it."""

    sandboxes: Sandboxes
    patience_s: float
    facts: dict[str, str | int] = field(default_factory=dict)
    count: int = 0

    def start(self, source: str, files: dict[str, str], slot: int, **parts: Any) -> str:
        """A lease whose task is a Python script."""
        self.count += 1
        lease_id = f"ls-escape-{os.getpid()}-{self.count}"
        work = self.sandboxes.prepare(lease_id)
        for name, text in {"main.py": source, **files}.items():
            (work / name).write_text(text)
        (work / "came").symlink_to("/etc")
        parts = {"uid_base": uid_base(SLOT + slot), "memory_bytes": 192 * MIB} | parts
        argv = (PYTHON, "-I", "-S", "main.py")
        spec = SandboxSpec(lease_id, argv, **parts)
        self.sandboxes.start(lease_id, spec, Deadline.after(round(self.patience_s * 1000), 0))
        return lease_id

    def log(self, lease_id: str) -> str:
        path = self.sandboxes.folder(lease_id) / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def ended(self, lease_id: str) -> Exited:
        """Its end, awaited."""
        return eventually_sync(
            lambda: isinstance(state := self.sandboxes.inspect(lease_id), Exited) and state,
            self.patience_s + 20,
        )

    def says(self, lease_id: str, text: str) -> None:
        eventually_sync(lambda: text in self.log(lease_id), self.patience_s)

    def victim(self) -> str:
        """Another tenant's task, with something in every place."""
        numbers = {"x86_64": 240, "aarch64": 180}
        facts = {"secret": SECRET, "mq_open": numbers[platform.machine()]}
        victim = self.start(_VICTIM % facts, {}, 1)
        self.says(victim, "up")
        folder = self.sandboxes.folder(victim)
        started = shim.read_json(str(folder / "started.json")) or {}
        keeper = shim.read_json(str(folder / "shim.json")) or {}
        self.facts |= {
            "victim": victim,
            "victim_pid": started["init_pid"],
            "keeper_pid": keeper["pid"],
            "victim_uid": uid_base(SLOT + 1) + 1000,
            "secret": str(folder / "work/secret"),
        }
        return victim

    def attack(self, mounts: Sequence[Mount] = ()) -> list[tuple[Probe, str]]:
        """Every probe and what came of it, in one sandbox."""
        probes = load(platform.machine(), self.facts)
        # On cgroup v2 memory without end takes the whole sandbox along: it comes last.
        probes.sort(key=lambda probe: probe.words[0] == "hoard")
        rows = [[probe.name, probe.words] for probe in probes]
        plan = json.dumps({"patience_s": self.patience_s / 5, "probes": rows})
        source = BATCH.read_text("utf-8")
        lease_id = self.start(source, {"probes.json": plan}, 2, mounts=tuple(mounts))
        record = self.ended(lease_id).record
        found = dict(_lines(self.log(lease_id)))
        if record.reason == "OOM_KILLED" and probes[-1].name not in found:
            found[probes[-1].name] = "killed SIGKILL"
        return [(probe, found.get(probe.name, "never tried")) for probe in probes]

    def close(self) -> None:
        """End whatever still runs."""
        for lease_id in self.sandboxes.list():
            self.sandboxes.kill(lease_id)
        for lease_id in self.sandboxes.list():
            self.ended(lease_id)
        self.sandboxes.list()


def _lines(log: str) -> Iterator[tuple[str, str]]:
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            name, outcome = json.loads(line)
            yield name, outcome


def host_address() -> str:
    """An address of this host that is not its loopback, else the loopback's second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(asked.getsockname()[0])


@contextlib.contextmanager
def world(folder: Path, runtime: Runtime, patience_s: float = 60.0) -> Iterator[World]:
    """A node under ``folder``, with decoys of everything that the table looks for."""
    state = folder / "state"
    made = World(Sandboxes(state, runtime), patience_s)
    with contextlib.ExitStack() as stack:
        stack.callback(made.close)
        tcp = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        abstract = f"gridlease-escape-{os.getpid()}"
        for address in (f"\0{abstract}", str(state / "executor.sock")):
            local = stack.enter_context(socket.socket(socket.AF_UNIX))
            local.bind(address)
            local.listen()
        decoy = subprocess.Popen(["sleep", "600"], env={AGENT_MARK: "1"})
        stack.callback(decoy.wait)
        stack.callback(decoy.kill)
        for name in ("spool.db", "node.key"):
            (state / name).write_text(SECRET)
            (state / name).chmod(0o644)
        made.facts |= {
            "state": str(state),
            "host_pid": decoy.pid,
            "agent_mark": AGENT_MARK,
            "tcp_port": tcp.getsockname()[1],
            "abstract": abstract,
            "unix_path": str(state / "executor.sock"),
            "host_ip": host_address(),
            "hostname": f"{socket.gethostname()}-host",
        }
        made.victim()
        yield made


def trapped(folder: Path, state: Path) -> Mount:
    """A folder for the task whose links lead out of it."""
    folder.mkdir()
    for name, target in (("out", "/"), ("up", "../../../../../../.."), ("state", str(state))):
        (folder / name).symlink_to(target)
    return Mount(str(folder), "/data")


def leaks(found: Sequence[tuple[Probe, str]], runtime: str) -> list[str]:
    """What came of it that must not have; one line each."""
    return [
        f"{probe.kind}/{probe.name} ({probe.tries}): {outcome}, must be {probe.must}"
        for probe, outcome in found
        if not probe.holds(outcome) and not (runtime == "bubblewrap" and probe.unpromised)
    ]
