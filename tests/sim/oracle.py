"""The truth of a run, with P1-P8 and the gangs checked against it: nobody else reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridlease_agent.domain.spool import Spool
from gridlease_billing.domain import grant
from gridlease_billing.domain.grant import Effect, GrantRow
from gridlease_scheduler.domain.lease import Lease, State

from tests.sim.world import DRIFT_PPM, GRANT_MS, KILL_MS, Violation, World

if TYPE_CHECKING:
    from tests.sim.billing import Billing
    from tests.sim.cluster import Cluster
    from tests.sim.node import Node, Sandbox

_RUN = grant.RUN_METER


@dataclass(eq=False)
class Run:
    """One start of one lease: what really happened."""

    node: Node
    sandbox: Sandbox
    ran_ns: int | None = None  # by the node's clock, once ended
    exact: bool = True  # False: a reboot or a lost disk took the last counters

    def now_ns(self) -> int:
        if self.ran_ns is not None:
            return self.ran_ns
        if self.sandbox.ready_ns is None:
            return 0
        return self.node.clocks().boottime_ns - self.sandbox.ready_ns


class Oracle:
    def __init__(self, world: World) -> None:
        self.world = world
        self.runs: dict[str, Run] = {}
        self.leases: dict[str, Lease] = {}
        self.checks = 0

    def fail(self, name: str, story: str) -> None:
        self.world.say(f"!!  {name} {story}")
        raise Violation(name, f"seed {self.world.seed} at {self.world.now} ms: {story}")

    # events of the world

    def started(self, node: Node, sandbox: Sandbox) -> None:
        lease = self.leases[sandbox.lease_id]
        if lease.state is State.CLOSED:
            self.fail("P1", f"{lease.lease_id} starts after it was CLOSED")
        if lease.lease_id in self.runs:
            self.fail("P4", f"{lease.lease_id} starts a second time")
        for device in sandbox.devices:
            if device in node.residue:
                self.fail("P7", f"{lease.lease_id} starts on unscrubbed {device}")
            for other in node.sandboxes.values():
                if device in other.devices:
                    self.fail("P7", f"{lease.lease_id} starts beside {other.lease_id}")
        self.runs[lease.lease_id] = Run(node, sandbox)

    def ended(self, node: Node, sandbox: Sandbox) -> None:
        run = self.runs[sandbox.lease_id]
        run.ran_ns = run.now_ns()

    def rebooted(self, node: Node) -> None:
        for run in self.runs.values():
            if run.node is node and run.ran_ns is None:
                run.exact = False

    def disk_lost(self, name: str) -> None:
        for run in self.runs.values():
            if run.node.name == name:
                run.exact = False

    def followed(self, node: Node, before: Spool, after: Spool) -> None:
        """P6: whoever is stopped by a desired set is not ACTIVE."""
        if after is before:
            return
        for lease_id, row in after.rows.items():
            old = before.rows.get(lease_id)
            stopped = row.stop_at_ns is not None and (old is None or old.stop_at_ns is None)
            dropped = row.phase >= 3 and (old is None or old.phase == 1)
            if (stopped or dropped) and self.leases[lease_id].state is State.ACTIVE:
                self.fail("P6", f"{lease_id} is ACTIVE and stopped by a stale set")

    def wrote(self, cluster: Cluster, old: Lease | None, lease: Lease) -> None:
        """P1, P2, P3 at every write of a lease."""
        self.checks += 1
        self.leases[lease.lease_id] = lease
        if old is None:
            for other in self.leases.values():
                if other is lease or other.state is State.CLOSED:
                    continue
                if other.task_id == lease.task_id or set(other.devices) & set(lease.devices):
                    self.fail("P2", f"{lease.lease_id} beside {other.lease_id}")
                tasks = cluster.database.tasks
                same = tasks[other.task_id].gang == tasks[lease.task_id].gang
                if same and other.attempt != lease.attempt:
                    self.fail(
                        "GANG", f"{lease.lease_id} beside {other.lease_id} of another attempt"
                    )
        elif lease.state is State.CLOSED and old.state is not State.CLOSED:
            run = self.runs.get(lease.lease_id)
            if run is not None and run.ran_ns is None:
                self.fail("P1", f"{lease.lease_id} CLOSED while it runs")
            row = cluster.billing.rows.get(lease.lease_id)
            if row is None or row.state not in (grant.State.FENCED, grant.State.FINAL):
                self.fail("P3", f"{lease.lease_id} CLOSED, billing says {row and row.state}")
        elif old.state is State.CLOSED and lease.state is not State.CLOSED:
            self.fail("P2", f"{lease.lease_id} rises from CLOSED")

    def booked(
        self, billing: Billing, before: GrantRow | None, row: GrantRow, effect: Effect
    ) -> None:
        """P5 and the books at every write of a grant."""
        self.checks += 1
        if row.held_nano < 0 or effect.charge_nano < 0:
            self.fail("P5", f"{row.lease_id} {effect}")
        if row.charged_nano > (before.charged_nano if before else 0):
            charged_ns = sum(grant.chargeable_ns(row))
            run = self.runs.get(row.lease_id)
            ran_ns = run.now_ns() if run else 0
            if charged_ns > ran_ns:
                self.fail("P5", f"{row.lease_id} charged {charged_ns} ns, ran {ran_ns}")
            if charged_ns > grant.granted_ns(row):
                self.fail("P5", f"{row.lease_id} charged beyond its grant")

    def committed(self, billing: Billing) -> None:
        """The books after each transaction: reserve, capture, release, never overdrawn."""
        if billing.credit_nano < billing.charged_nano + billing.held_nano:
            self.fail(
                "P5",
                f"{billing.charged_nano} charged, {billing.held_nano} held, "
                f"of {billing.credit_nano}",
            )

    def at_rest(self, cluster: Cluster) -> None:
        """P8, and P5 with equality, once everything has healed."""
        for task in cluster.database.tasks.values():
            if task.state == "PENDING":
                self.fail("P8", f"{task.task_id} still waits")
        gangs: dict[str, set[tuple[str, int]]] = {}
        for task in cluster.database.tasks.values():
            gangs.setdefault(task.gang, set()).add((task.state, task.attempt))
        for gang, found in gangs.items():
            if len(found) > 1:
                self.fail("GANG", f"{gang} stands in several places at once: {sorted(found)}")
        active = {x.lease_id for x in self.leases.values() if x.state is State.ACTIVE}
        running = {k for node in cluster.nodes.values() for k in node.sandboxes}
        if active != running:
            self.fail("P8", f"ACTIVE {sorted(active)}, running {sorted(running)}")
        for lease in self.leases.values():
            if lease.state is State.CLOSING:
                self.fail("P8", f"{lease.lease_id} still CLOSING")
        billing = cluster.billing
        for row in billing.rows.values():
            self._row_at_rest(row, billing)
        if billing.held_nano != sum(row.held_nano for row in billing.rows.values()):
            self.fail("P5", "holds do not add up")
        if billing.charged_nano != sum(row.charged_nano for row in billing.rows.values()):
            self.fail("P5", "charges do not add up")

    def _row_at_rest(self, row: GrantRow, billing: Billing) -> None:
        lease = self.leases.get(row.lease_id)
        if row.state is grant.State.HELD and (lease is None or lease.state is State.CLOSED):
            self.fail("P8", f"{row.lease_id} is an orphan hold")
        run = self.runs.get(row.lease_id)
        if lease is None or lease.state is not State.CLOSED or run is None:
            return
        if row.state is not grant.State.FINAL and run.exact:
            self.fail("P8", f"{row.lease_id} CLOSED, billing still {row.state}")
        # What is charged never exceeds either: ``booked`` has checked it at each posting.
        ran_ns, charged_ns = run.now_ns(), sum(grant.chargeable_ns(row))
        # With several segments the time that a kill takes counts against the last one's grant.
        least_ns = min(ran_ns, grant.granted_ns(row))
        if len(row.segments) > 1:
            least_ns -= (KILL_MS + GRANT_MS * DRIFT_PPM // 1_000_000) * 1_000_000
        if run.exact and charged_ns < least_ns:
            self.fail(
                "P5",
                f"{row.lease_id} charged {charged_ns}, ran {ran_ns}, granted "
                f"{grant.granted_ns(row)}",
            )
