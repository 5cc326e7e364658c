"""What can be asked of sandboxes made ahead: the seam between the core and the root part."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gridlease_agent.domain.warm import Being
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.runtimes.states import Deadline


@dataclass(frozen=True, slots=True)
class Ahead:
    """One sandbox made ahead, as its folder says."""

    warm_id: str
    being: Being


class Holding(Protocol):
    """What the core may ask of sandboxes made ahead; ``HeldSandboxes`` answers."""

    def make(
        self, warm_id: str, spec: SandboxSpec, deadline: Deadline, modules: tuple[str, ...]
    ) -> None: ...
    def seen(self) -> tuple[Ahead, ...]: ...
    def extend(self, warm_id: str, deadline: Deadline) -> None: ...
    def release(
        self, warm_id: str, spec: SandboxSpec, commands: tuple[str, ...], deadline: Deadline
    ) -> None: ...
    def drop(self, warm_id: str) -> bool: ...
    def abandon(self, lease_ids: Collection[str]) -> tuple[str, ...]: ...
