"""A node in the simulator: a host with two clocks and a disk, an agent, shims and sandboxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridlease_agent.domain import lease as agent
from gridlease_agent.domain import step as steps
from gridlease_agent.domain.spool import (
    Clocks,
    Deadline,
    ExitRecord,
    Phase,
    Shim,
    Spool,
    StopOrder,
    Wanted,
)
from gridlease_billing.domain import grant
from gridlease_scheduler.domain import lease as scheduler

from tests.sim.oracle import Oracle
from tests.sim.rules import Rules
from tests.sim.world import KILL_MS, REPORT_MS, RETRY_MS, SLOW_TICK_MS, World

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster


@dataclass(eq=False)
class Sandbox:
    """What really runs: truth, which only the oracle may read."""

    node: Node
    lease_id: str
    devices: tuple[str, ...]
    deadline: Deadline
    boot_id: str
    ready_ns: int | None = None
    ended: bool = False
    dying: bool = False

    def shim(self) -> Shim:
        return Shim(self.lease_id, self.devices, self.deadline, self.ready_ns)


class Node:
    """One host. ``disk`` is what survives a crash of the agent; ``None`` = lost."""

    def __init__(
        self, name: str, world: World, rules: Rules, oracle: Oracle, cluster: Cluster
    ) -> None:
        self.name, self.world, self.rules, self.oracle = name, world, rules, oracle
        self.cluster = cluster
        self.devices = (f"{name}.0", f"{name}.1")
        self.drift_ppm = world.drift()
        self.boots = 1
        self.boot_true_ms = -world.rng.randrange(50_000, 500_000)
        self.disk: Spool | None = None
        self.spools = 0
        self.residue: dict[str, str] = {}  # device -> lease whose data is still on it
        self.sandboxes: dict[str, Sandbox] = {}
        self.exits: dict[str, ExitRecord] = {}
        self.alive = False
        self.incarnation = 0
        self.asked_ns: int | None = None
        self.prepared: dict[str, bool] = {}
        self.reported: tuple[object, ...] = ()
        self.counted: dict[str, dict[tuple[int, str], int]] = {}  # for T 16 only

    # the host

    def clocks(self) -> Clocks:
        ns = (self.world.now - self.boot_true_ms) * (1_000_000 + self.drift_ppm)
        return Clocks(f"{self.name}-boot{self.boots}", ns, ns)

    def reboot(self) -> None:
        """Everything that runs is dead at once, and the clocks begin again."""
        self.world.say(f"{self.name}  reboot")
        self.crash()
        for sandbox in list(self.sandboxes.values()):
            self._end(sandbox, None, "")
        self.boots += 1
        self.boot_true_ms = self.world.now

    def lose_disk(self) -> None:
        self.world.say(f"{self.name}  disk lost")
        self.crash()
        self.disk = None
        self.exits = {}
        self.oracle.disk_lost(self.name)

    def crash(self) -> None:
        """The agent's process is gone; disk and shims stay."""
        self.alive = False
        self.incarnation += 1

    def crashes_now(self) -> bool:
        """At the worst moment, now and then."""
        if self.world.healed or "crash" not in self.world.profile.mishaps:
            return False
        if self.world.rng.random() > 0.1:
            return False
        self.crash()
        self.world.say(f"{self.name}  agent crashes between write and exec")
        self.world.at(self.world.rng.randrange(100, 5_000), self.boot)
        return True

    def boot(self) -> None:
        """The agent's process starts."""
        if self.alive:
            return
        self.alive = True
        self.asked_ns, self.prepared, self.reported = None, {}, ()
        if self.disk is None:
            self.spools += 1
            self.disk = agent.new_spool(f"{self.name}-spool{self.spools}", self.devices)
        shims = {s.lease_id: s.shim() for s in self.sandboxes.values()}
        self.disk = self.rules.recover(self.disk, self.clocks(), shims, self.exits)
        self.world.say(f"{self.name}  agent starts on {self.disk.spool_id}")
        self.turn()
        self.sync()

    # the sandboxes

    def execute(self, lease_id: str) -> None:
        """The shim checks the deadline once more, then runs the workload."""
        assert self.disk is not None
        row = self.disk.rows[lease_id]
        assert row.deadline is not None
        sandbox = Sandbox(self, lease_id, row.devices, row.deadline, self.clocks().boot_id)
        self.oracle.started(self, sandbox)
        self.sandboxes[lease_id] = sandbox
        self.world.say(f"{self.name}  exec {lease_id} until {row.deadline.boottime_ns // 10**6}")
        self.world.at(self.world.rng.randrange(5, 200), self._ready, sandbox)
        self._watch(sandbox)

    def _ready(self, sandbox: Sandbox) -> None:
        if sandbox.ended:
            return
        sandbox.ready_ns = self.clocks().boottime_ns
        if self.alive and self.disk is not None and sandbox.lease_id in self.disk.rows:
            self.disk = agent.observe_ready(self.disk, sandbox.lease_id, sandbox.ready_ns)
        run_ms = self.cluster.run_ms(sandbox.lease_id)
        if run_ms is not None:
            self.world.at(run_ms, self._exit, sandbox, 0, "EXITED")

    def _exit(self, sandbox: Sandbox, code: int, reason: str) -> None:
        if sandbox.ended or (self.world.healed and reason == "EXITED"):
            return
        record = ExitRecord(
            sandbox.boot_id, code, reason, sandbox.ready_ns, self.clocks().boottime_ns
        )
        self._end(sandbox, record, reason)
        self.world.at(self.world.rng.randrange(1, 50), self._reap, self.incarnation)

    def _end(self, sandbox: Sandbox, record: ExitRecord | None, reason: str) -> None:
        sandbox.ended = True
        del self.sandboxes[sandbox.lease_id]
        self.oracle.ended(self, sandbox)
        for device in sandbox.devices:
            self.residue[device] = sandbox.lease_id
        if record is not None:
            self.exits[sandbox.lease_id] = record
        self.world.say(f"{self.name}  end {sandbox.lease_id} {reason}")

    def _watch(self, sandbox: Sandbox) -> None:
        """The shim's timer: the deadline that it holds now."""
        left_ms = sandbox.deadline.left_ns(self.clocks()) // (1_000_000 + self.drift_ppm) + 1
        self.world.at(left_ms, self._deadline, sandbox)

    def _deadline(self, sandbox: Sandbox) -> None:
        if sandbox.ended or sandbox.dying:
            return
        if sandbox.deadline.left_ns(self.clocks()) > 0:
            self._watch(sandbox)
        elif self.rules.shim_kills(sandbox):
            self._kill(sandbox, "DEADLINE")
        else:
            self.world.at(RETRY_MS, self._deadline, sandbox)

    def _kill(self, sandbox: Sandbox, reason: str) -> None:
        if not sandbox.dying:
            sandbox.dying = True
            self.world.at(self.world.rng.randrange(1, KILL_MS), self._exit, sandbox, 137, reason)

    def _reap(self, incarnation: int) -> None:
        if self.alive and incarnation == self.incarnation:
            self.turn()

    # the agent

    def tick(self) -> None:
        """A turn every while; the slow tick also asks the scheduler."""
        if self.alive:
            self.turn()

    def slow_tick(self) -> None:
        if self.alive:
            self.sync()

    def turn(self) -> None:
        """Looks at what has ended, then does what is due, writing before acting."""
        assert self.disk is not None
        spool = self.disk
        for row in spool.rows.values():
            if row.phase is Phase.STARTING and row.lease_id not in self.sandboxes:
                record = self.exits.get(row.lease_id)
                spool = agent.observe_exit(spool, row.lease_id, record)
                self.asked_ns = None
        now = self.clocks()
        self.disk = agent.ticked(spool, now, self.sandboxes)
        for row in self.disk.rows.values():
            if row.lease_id not in self.prepared and row.phase is Phase.KNOWN:
                self.prepared[row.lease_id] = False
                delay = self.world.rng.randint(*self.world.profile.prepare_ms)
                self.world.at(delay, self._prepared, row.lease_id, self.incarnation)
        prepared = [lease_id for lease_id, done in self.prepared.items() if done]
        shims = {s.lease_id: s.shim() for s in self.sandboxes.values()}
        due = steps.next_steps(self.disk, now, shims, prepared, self.asked_ns, RETRY_MS, REPORT_MS)
        for step in due:
            self._take(step, now)
            if not self.alive:
                return
        phases = agent.sync_report(self.disk)
        if phases != self.reported:
            self.sync()

    def _prepared(self, lease_id: str, incarnation: int) -> None:
        if self.alive and incarnation == self.incarnation:
            self.prepared[lease_id] = True
            self.turn()

    def _take(self, step: steps.Step, now: Clocks) -> None:
        assert self.disk is not None
        match step:
            case steps.Start():
                self.rules.start(self, step.lease_id, step.spool_after)
            case steps.Extend():
                self.sandboxes[step.lease_id].deadline = step.deadline
            case steps.Kill():
                self._kill(self.sandboxes[step.lease_id], "STOPPED")
            case steps.Scrub():
                delay = self.world.rng.randrange(10, 300)
                self.world.at(delay, self._scrubbed, step.devices, self.incarnation)
            case steps.Delete():
                self.disk = agent.deleted(self.disk, step.lease_id)
                self.exits.pop(step.lease_id, None)
            case steps.Settle():
                self._settle(now)
            case steps.Stop():
                sandbox = self.sandboxes[step.lease_id]
                if self.world.rng.random() < 0.3:  # a workload that obeys
                    self.world.at(200, self._exit, sandbox, 143, "SIGTERM")

    def _scrubbed(self, devices: frozenset[str], incarnation: int) -> None:
        if not self.alive or incarnation != self.incarnation:
            return
        assert self.disk is not None
        busy = {device for s in self.sandboxes.values() for device in s.devices}
        for device in devices - busy:
            self.residue.pop(device, None)
        self.disk = agent.scrubbed(self.disk, devices - busy)
        self.turn()

    def _settle(self, now: Clocks) -> None:
        assert self.disk is not None
        self.asked_ns = now.boottime_ns
        spool_id = self.rules.spool_id(self.disk)
        reports = {
            r.lease_id: grant.Report(
                r.lease_id, spool_id, grant.Phase(r.phase), r.final, r.counters
            )
            for r in self.rules.settle_report(self, self.disk)
        }
        incarnation = self.incarnation

        def reply(answers: tuple[grant.Answer, ...]) -> None:
            self.world.send(
                "Settle<", "B", self.name, self.on_settle_answer, incarnation, now, answers
            )

        self.world.send(
            "Settle>", self.name, "B", self.cluster.billing.on_settle, self.name, reports, reply
        )

    def on_settle_answer(
        self, incarnation: int, sent: Clocks, answers: tuple[grant.Answer, ...]
    ) -> None:
        if not self.alive or incarnation != self.incarnation:
            return
        assert self.disk is not None
        spool = self.disk
        for a in answers:
            answer = agent.Answer(
                a.lease_id, a.valid_for_ms, a.last, a.reason, a.segment, a.final_acknowledged
            )
            spool = self.rules.grant_answer(spool, sent, self.clocks(), answer)
        self.disk = spool
        self.turn()

    def sync(self) -> None:
        """What I see -> what I should have."""
        assert self.disk is not None
        self.reported = agent.sync_report(self.disk)
        sightings = tuple(
            scheduler.Sighting(
                s.lease_id,
                scheduler.Phase(s.phase),
                s.exit and scheduler.Exit(s.exit.code, s.exit.reason, s.exit.ran_ns),
                s.gone,
            )
            for s in self.rules.sync_report(self.disk)
        )
        incarnation = self.incarnation

        def reply(desired: scheduler.DesiredSet) -> None:
            self.world.send("Sync<", "S", self.name, self.on_desired_set, incarnation, desired)

        leader = self.cluster.any_leader()
        self.world.send(
            "Sync>", self.name, "S", leader.on_sync, self.name, sightings, self.disk.dirty, reply
        )

    def on_hint(self) -> None:
        if self.alive:
            self.sync()

    def on_desired_set(self, incarnation: int, desired: scheduler.DesiredSet) -> None:
        if not self.alive or incarnation != self.incarnation:
            return
        assert self.disk is not None
        before = self.disk
        run = tuple(Wanted(x.lease_id, x.devices) for x in desired.run)
        stop = tuple(StopOrder(x.lease_id, x.notice_ms) for x in desired.stop)
        self.disk = self.rules.apply_desired_set(
            before, self.clocks(), desired.generation, run, stop
        )
        self.oracle.followed(self, before, self.disk)
        if self.disk is not before:
            if self.disk.rows.keys() != before.rows.keys():
                self.asked_ns = None
            self.turn()

    def every(self) -> tuple[int, int]:
        return RETRY_MS, SLOW_TICK_MS
