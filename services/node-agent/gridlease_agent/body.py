"""What a node is: this host, by itself or through its executor, or one that is not there."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path

from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Precondition

from gridlease_agent.devices.scrubbed import DeviceKeeping, NothingKept
from gridlease_agent.executor.client import Executor
from gridlease_agent.images.seam import Images
from gridlease_agent.inventory import Lending, drivers, lent_disk_bytes, lent_memory_bytes
from gridlease_agent.noop import NoopSandboxes
from gridlease_agent.ports import Files
from gridlease_agent.probes import emulated
from gridlease_agent.probes.facts import NodeFacts
from gridlease_agent.runtimes.holding import Holding
from gridlease_agent.runtimes.states import Isolating, Isolation, SandboxRunner
from gridlease_agent.selftest import SelfTest
from gridlease_agent.sessions.host import Entrance, NoSessions
from gridlease_agent.settings import Settings

ONE_PROCESS = "agent: one process does it all, with every right that it has"


@dataclass(frozen=True, slots=True)
class Body:
    """What a node is: its facts, how it isolates, and what it lends."""

    facts: NodeFacts
    sandboxes: SandboxRunner
    lending: Lending
    entrance: Entrance = field(default_factory=NoSessions)
    images: Images | None = None
    keeper: DeviceKeeping = field(default_factory=lambda: NothingKept(emulated=True))
    files: Files | None = None  # the leases' files, where another process holds them
    warm: Holding | None = None  # sandboxes made ahead, where the host can
    host: Isolating | None = None  # who opens what is root's alone, where that is another process


def real_body(state: Path, settings: Settings) -> Body:
    """This very host, all in this process. Blocking: tries the sandbox runtime once.

    Raises:
        Precondition: NO_SANDBOX_RUNTIME.
    """
    # The core of a node that has an executor never needs what only that may do.
    from gridlease_agent.executor.privileged import privileged  # noqa: PLC0415
    from gridlease_agent.runtimes.held import HeldSandboxes  # noqa: PLC0415

    own = privileged(state, settings)
    told = Isolation(own.told.runtime, (*own.told.unenforced, ONE_PROCESS))
    warm = HeldSandboxes(own.sandboxes) if own.told.holds else None
    lending = _lending(state, settings, own.facts, told)
    return Body(own.facts, own.sandboxes, lending, own.entrance, own.images, own.keeper, warm=warm)


def core_body(state: Path, settings: Settings) -> Body:
    """This very host, through the executor of its state folder. Blocking.

    Raises:
        Unreachable: EXECUTOR_AWAY.
    """
    executor = Executor(state)
    host: Isolating = executor.room("host")
    told, facts = host.isolation(), host.discovered()
    return Body(
        facts,
        executor.room("sandboxes"),
        _lending(state, settings, facts, told),
        executor.room("sessions"),
        executor.room("images") if told.images else None,
        executor.room("devices"),
        executor.room("files"),
        executor.room("warm") if told.holds else None,
        host,
    )


def _lending(state: Path, settings: Settings, facts: NodeFacts, told: Isolation) -> Lending:
    fitness = SelfTest(state, SystemClock())(
        facts.host.boot_id, drivers(facts.devices), settings.burn_in_ms
    )
    return Lending(
        lent_memory_bytes(facts.memory.usable_bytes, settings.memory_reserve_bytes),
        _disk_bytes(state, facts, settings),
        told.runtime,
        told.unenforced,
        _version(),
        fitness,
    )


def emulated_body(kind: str, index: int) -> Body:
    """A node that is not there.

    Raises:
        Precondition: NO_SUCH_EMULATION.
    """
    if kind not in emulated.MODELS:
        raise Precondition(
            f"No node of kind {kind!r} can be emulated.",
            reason="NO_SUCH_EMULATION",
            field="--emulate",
            remedy=f"Choose one of {', '.join(emulated.MODELS)}.",
        )
    facts = emulated.probe(kind, index)
    lending = Lending(
        facts.memory.usable_bytes, facts.disk.free_bytes, "noop", ("all: nothing runs",), _version()
    )
    return Body(facts, NoopSandboxes(), lending)


def _version() -> str:
    try:
        return importlib.metadata.version("gridlease")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _disk_bytes(state: Path, facts: NodeFacts, settings: Settings) -> int:
    """Decided at the first start and kept: tasks that fill it must not shrink it."""
    path = state / "disk.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        kept = json.loads(path.read_text("utf-8"))
        if kept["total_bytes"] == facts.disk.total_bytes:
            return int(kept["lent_bytes"])
    total, share = facts.disk.total_bytes, settings.disk_share_percent
    lent = lent_disk_bytes(total, facts.disk.free_bytes, share)
    path.write_text(json.dumps({"total_bytes": total, "lent_bytes": lent}), "utf-8")
    return lent
