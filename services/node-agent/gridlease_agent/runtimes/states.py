"""What a sandbox can be asked, and what it answers: the seam between the core and the root part."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from gridlease_agent import shim
from gridlease_agent.executor.codec import Handle
from gridlease_agent.probes.facts import NodeFacts
from gridlease_agent.runtimes.spec import SandboxSpec

Word = tuple[str, str]  # what a task is told: a code, empty = the exit's reason; and a sentence


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant at which a grant ends, on both clocks of one boot, and the warning before it."""

    boot_id: str
    boottime_ns: int
    raw_ns: int
    grace_ms: int

    @classmethod
    def after(cls, span_ms: int, grace_ms: int) -> Deadline:
        """``span_ms`` from now, on this boot's clocks."""
        span_ns = span_ms * 1_000_000
        now = shim.boottime_ns() + span_ns, shim.raw_ns() + span_ns
        return cls(shim.boot_id(), *now, grace_ms)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended: the shim's exit record."""

    reason: str
    exit_code: int
    signal: int
    started: bool
    boot_id: str
    ended_boottime_ns: int
    ended_wall_ns: int
    oom: bool
    oom_kills: int
    message: str
    cpu_ns: int
    max_memory_bytes: int
    clean: bool
    log_truncated: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """No folder, or one whose shim never came to be."""


@dataclass(frozen=True, slots=True)
class Starting:
    """A shim lives; the task has not been released yet."""


@dataclass(frozen=True, slots=True)
class Running:
    """The task was released at this instant and its shim lives."""

    started_boottime_ns: int
    started_wall_ns: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The task is over. ``started_boottime_ns`` is 0 if it never ran."""

    record: Exit
    started_boottime_ns: int


SandboxState = Absent | Starting | Running | Exited


@dataclass(frozen=True, slots=True)
class Looked:
    """One sandbox, as a look at all of them finds it. ``keeper_pid``: 0 once that is gone.

    ``cgroup``: of one that lives, below each hierarchy's root; "" where it has none.
    """

    lease_id: str
    state: SandboxState
    keeper_pid: int
    cgroup: str = ""


class SandboxRunner(Protocol):
    """What the agent's core may ask for; ``Sandboxes`` and ``NoopSandboxes`` answer."""

    def start(self, lease_id: str, spec: SandboxSpec, deadline: Deadline) -> None: ...
    def extend(self, lease_id: str, deadline: Deadline) -> None: ...
    def stop(
        self, lease_id: str, notice_ms: int, reason: str = "STOPPED", word: Word = ("", "")
    ) -> None: ...
    def kill(self, lease_id: str) -> None: ...
    def inspect(self, lease_id: str) -> SandboxState: ...
    def look(self) -> tuple[Looked, ...]: ...
    def alive(self, lease_ids: Collection[str]) -> tuple[str, ...]: ...
    def egress_bytes(self) -> Mapping[str, int]: ...
    def remove(self, lease_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Isolation:
    """By what tasks are isolated on this host. ``unenforced``: what is not, in words."""

    runtime: str
    unenforced: tuple[str, ...]
    images: bool = False  # whether a task may stand on one
    holds: bool = False  # whether sandboxes can be made ahead


class Isolating(Protocol):
    """Who knows it."""

    def isolation(self) -> Isolation: ...
    def discovered(self) -> NodeFacts: ...
    def open_energy(self, zone: str) -> Handle | None: ...
