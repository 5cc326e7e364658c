"""Real sandboxes under a folder that only their owner can enter (pytest's own)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from gridlease_agent.isolate import cgroups
from gridlease_agent.keeper.build import Keeper
from gridlease_agent.runtimes import choose, secrets
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline, Exit, Exited, Running, Sandboxes, try_runtime
from gridlease_testkit.waiting import eventually_sync

T = TypeVar("T")


def wait_for(question: Callable[[], T | None], seconds: float = 20.0) -> T:
    """The first true answer; fails loudly at the deadline."""
    return eventually_sync(question, seconds)


class Bench:
    """One node's sandboxes, and the few moves that tests make."""

    def __init__(
        self, state_dir: Path, runtime: choose.Runtime, keeper: Keeper | None = None
    ) -> None:
        self.state_dir = state_dir
        self.runtime = runtime
        self.sandboxes = Sandboxes(state_dir, runtime, keeper=keeper)
        self._count = 0

    def start(self, script: str, *, span_ms: int = 60_000, grace_ms: int = 0, **parts) -> str:
        return self.start_argv(("/bin/sh", "-c", script), span_ms, grace_ms, **parts)

    def start_argv(self, argv, span_ms: int = 60_000, grace_ms: int = 0, **parts) -> str:
        self._count += 1
        lease_id = f"ls-{os.getpid()}-{time.monotonic_ns()}-{self._count}"
        spec = SandboxSpec(lease_id, tuple(argv), **parts)
        self.sandboxes.start(lease_id, spec, Deadline.after(span_ms, grace_ms))
        return lease_id

    def folder(self, lease_id: str) -> Path:
        return self.sandboxes.folder(lease_id)

    def cgroup(self, lease_id: str) -> str:
        return cgroups.recorded(self.folder(lease_id))

    def running(self, lease_id: str) -> Running:
        return wait_for(lambda: self._as(lease_id, Running))

    def exited(self, lease_id: str, seconds: float = 30.0) -> Exited:
        return wait_for(lambda: self._as(lease_id, Exited), seconds)

    def _as(self, lease_id: str, kind: type[T]) -> T | None:
        state = self.sandboxes.inspect(lease_id)
        return state if isinstance(state, kind) else None

    def log(self, lease_id: str) -> str:
        path = self.folder(lease_id) / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def says(self, lease_id: str, text: str, seconds: float = 20.0) -> None:
        wait_for(lambda: text in self.log(lease_id), seconds)

    def run(self, script: str, **parts) -> tuple[Exit, str]:
        lease_id = self.start(script, **parts)
        record = self.exited(lease_id).record
        return record, self.log(lease_id)

    def close(self) -> None:
        for lease_id in self.sandboxes.list():
            self.sandboxes.kill(lease_id)
        for lease_id in self.sandboxes.list():
            self.exited(lease_id)
            secrets.forget(self.folder(lease_id))
        self.sandboxes.list()


def _usable(runtime: choose.Runtime | None, folder: Path, what: str) -> choose.Runtime:
    if runtime is None:
        pytest.skip(f"{what} needs root and its program")
    trouble = try_runtime(runtime, folder)
    if trouble:
        pytest.skip(f"{what} is unusable here: {trouble}")
    return runtime


@pytest.fixture(scope="session")
def crun_runtime(tmp_path_factory: pytest.TempPathFactory) -> choose.Runtime:
    return _usable(choose.crun_candidate(), tmp_path_factory.mktemp("probe"), "crun")


@pytest.fixture(scope="session")
def bwrap_runtime(tmp_path_factory: pytest.TempPathFactory) -> choose.Runtime:
    found = choose.bwrap_candidates()
    runtime = found[-1] if found else None
    return _usable(runtime, tmp_path_factory.mktemp("probe"), "bubblewrap")


@pytest.fixture
def crun_bench(tmp_path: Path, crun_runtime: choose.Runtime) -> Iterator[Bench]:
    bench = Bench(tmp_path, crun_runtime)
    yield bench
    bench.close()


@pytest.fixture(params=["crun", "bubblewrap"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The same test under each runtime that this host can use."""
    name = "crun_runtime" if request.param == "crun" else "bwrap_runtime"
    bench = Bench(tmp_path, request.getfixturevalue(name))
    yield bench
    bench.close()
