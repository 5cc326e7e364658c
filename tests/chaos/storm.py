"""An agent that is killed again and again while real tasks run under it, and what must hold.

Real: the agent's processes, the keepers, the sandboxes, the broker. Played: the scheduler and
billing (``tests.integration.agent.centre``), which write down all that they are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gridlease_testkit.waiting import elapsed, eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre

LOST = ("START_LOST", "NODE_REBOOT")  # what ends a lease without an exit code of its own


@dataclass
class Plan:
    """What one task is to do. ``lease``: the one that it runs under now."""

    task: int
    seconds: float
    code: int
    attempt: int = 1

    @property
    def lease(self) -> str:
        return f"ls-{self.task:04d}-{self.attempt}"


@dataclass
class Storm:
    """Tasks come and go while kills fall; a seed is a storm, up to the machine's own timing."""

    centre: Centre
    agent: Agent
    seed: int
    at_once: int
    seconds: tuple[float, float]
    plans: dict[str, Plan] = field(default_factory=dict)  # by lease
    starts: dict[str, set[int]] = field(default_factory=dict)  # boottimes, as keepers wrote them
    kills: dict[str, int] = field(default_factory=dict)
    adopted: list[tuple[int, int]] = field(default_factory=list)  # how many, within ms
    away_s: list[float] = field(default_factory=list)  # from a kill to an open book
    made: int = 0
    lost: list[str] = field(default_factory=list)
    struck: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    # -- tasks ----------------------------------------------------------------------------------

    def fill(self) -> None:
        """As many tasks as are to run at once."""
        open_ones = [lease for lease in self.plans if lease in self.centre.run]
        for _ in range(self.at_once - len(open_ones)):
            self.made += 1
            span = self.random.uniform(*self.seconds)
            self._place(Plan(self.made, span, self.random.choice((0, 0, 3, 7, 42))))

    def _place(self, plan: Plan) -> None:
        self.plans[plan.lease] = plan
        spec = self.centre.want(
            plan.lease,
            [f"echo ran; sleep {plan.seconds:.2f}; exit {plan.code}"],
            notice_ms=1000,
        )
        spec.attempt = plan.attempt
        spec.allocation.cpu_milli, spec.allocation.memory_bytes = 100, 32 << 20

    def watch(self) -> None:
        """What the keepers have written, and what has ended: a lost task is placed anew."""
        for path in (self.agent.state / "leases").glob("*/started.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                began = json.loads(path.read_text("utf-8"))["boottime_ns"]
                self.starts.setdefault(path.parent.name, set()).add(began)
        for lease in [lease for lease in self.centre.run if self.centre.gone(lease)]:
            self.centre.forget(lease)
            ended = self.centre.exit(lease)
            assert ended is not None, lease
            plan = self.plans[lease]
            if ended.reason in LOST:
                self.lost.append(lease)
                self._place(Plan(plan.task, plan.seconds, plan.code, plan.attempt + 1))

    def running(self) -> list[str]:
        """Leases whose tasks the keepers say run."""
        folders = (self.agent.state / "leases").glob("*/started.json")
        return [x.parent.name for x in folders if not (x.parent / "exit.json").exists()]

    # -- kills ----------------------------------------------------------------------------------

    def victims(self) -> dict[str, int]:
        """The agent's processes by role; an agent of one process is its own."""
        process = self.agent.process
        assert process is not None
        try:
            found = json.loads((self.agent.state / "agent.json").read_text("utf-8"))
        except (OSError, ValueError):
            found = {}
        children = {role: found.get(role, 0) for role in ("executor", "core")}
        return {"agent": process.pid} | {role: pid for role, pid in children.items() if pid}

    async def strike(self) -> str:
        """Kill one of the agent's processes, and bring it back where nobody else does."""
        await elapsed(self.random.uniform(0.0, 0.6))
        victims = self.victims()
        role = self.random.choice(sorted(victims))
        before, began = len(self.running()), time.monotonic()
        mark = self.agent.log.stat().st_size
        with contextlib.suppress(ProcessLookupError):
            os.kill(victims[role], signal.SIGKILL)
        self.kills[role] = self.kills.get(role, 0) + 1
        if role == "agent":
            self.agent.kill()
            if self.random.random() < 0.2:  # and once more while it starts
                await self._stillborn()
            await self.agent.start()
        if role in ("agent", "core"):
            await eventually(lambda: self._opened(mark), 30.0, "the book is open again")
            self.adopted.append((before, self._opened(mark)))
            self.away_s.append(time.monotonic() - began)
        self.watch()
        self.fill()
        return role

    async def _stillborn(self) -> None:
        starting = asyncio.ensure_future(self.agent.start())
        await elapsed(self.random.uniform(0.1, 1.0))
        if self.agent.process is not None and not starting.done():
            self.agent.process.kill()
        with contextlib.suppress(AssertionError):
            await starting
        self.agent.kill()
        self.kills["starting"] = self.kills.get("starting", 0) + 1

    def _opened(self, mark: int) -> int:
        """Milliseconds that the newest recovery took, plus one; 0 = none since ``mark``."""
        with self.agent.log.open("rb") as log:
            log.seek(mark)
            lines = [line for line in log.read().splitlines() if b"the book is open" in line]
        return int(json.loads(lines[-1])["ms"]) + 1 if lines else 0

    async def strike_keeper(self) -> str:
        """Kill one keeper: its sandbox goes along. Answers the lease."""
        lease = self.random.choice(self.running())
        folder = self.agent.state / "leases" / lease
        keeper = json.loads((folder / "shim.json").read_text("utf-8"))["pid"]
        inside = json.loads((folder / "started.json").read_text("utf-8"))["init_pid"]
        self.struck.add(lease)  # it may not have written down yet that it began
        os.kill(keeper, signal.SIGKILL)
        await eventually(lambda: not _alive(inside), 10.0, "its sandbox is gone")
        self.kills["keeper"] = self.kills.get("keeper", 0) + 1
        return lease

    # -- the end --------------------------------------------------------------------------------

    async def calm(self, timeout_s: float) -> None:
        """No more kills and no new tasks: wait until each has ended."""

        def over() -> bool:
            self.watch()
            return not self.centre.run

        await eventually(over, timeout_s, f"all ended; seed {self.seed}")

    def check(self) -> None:
        """No task lost, none run twice, no exit code lost, no charge beside its run."""
        told = f"seed {self.seed}"
        for lease, plan in self.plans.items():
            ended = self.centre.exit(lease)
            assert ended is not None, (told, lease)
            assert len(self.starts.get(lease, ())) <= 1, (told, lease, self.starts[lease])
            exits = set(self._exits(lease))
            assert len(exits) == 1, (told, lease, exits)
            if lease in self.lost:
                assert plan.task in {p.task for p in self.plans.values() if p.attempt > 1}
                continue
            assert (ended.exit_code, ended.reason) == (plan.code, "EXITED"), (told, lease, ended)
            log = self.agent.state / "kept" / lease / "log"
            assert log.read_bytes() == b"ran\n", (told, lease)
            assert self.centre.charged_ns(lease) == ended.ran_ns, (told, lease)
            assert abs(ended.ran_ns / 1e9 - plan.seconds) < 5.0, (told, lease, ended.ran_ns)
        done = {p.task for lease, p in self.plans.items() if lease not in self.lost}
        assert done == set(range(1, self.made + 1)), told

    def _exits(self, lease: str) -> Iterator[tuple[int, str, int]]:
        for request in self.centre.syncs:
            for one in request.leases:
                if one.lease == lease and one.HasField("exit"):
                    yield one.exit.exit_code, one.exit.reason, one.exit.ran_ns

    def lost_running(self) -> list[str]:
        """Of the lost leases, those whose tasks had begun: their keepers were killed.

        The others were lost by an executor that died while it started them.
        """
        return [it for it in self.lost if self.starts.get(it) or it in self.struck]

    def line(self) -> str:
        """What it came to."""
        counts = [count for count, _ in self.adopted] or [0]
        times = sorted(ms for _, ms in self.adopted) or [0]
        away = sorted(self.away_s) or [0.0]
        kills = dict(sorted(self.kills.items()))
        return (
            f"chaos seed {self.seed}: {self.made} tasks, kills {kills}, {len(self.lost)} lost "
            f"(of these {len(self.lost_running())} with their keepers) and placed again; "
            f"adopted up to {max(counts)} at once in {times[len(times) // 2]} ms (median), "
            f"{times[-1]} ms (most), "
            f"{away[len(away) // 2]:.1f} s after the kill (median)"
        )


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return (
            Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
        )
    return False
