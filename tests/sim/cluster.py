"""One run: two nodes, billing, leaders, tasks, and a world that goes wrong until it heals."""

from __future__ import annotations

from gridlease_billing.domain.grant import Quote
from gridlease_scheduler.domain.lease import Cause, State

from tests.sim.billing import RATES_NANO, Billing
from tests.sim.node import Node
from tests.sim.oracle import Oracle
from tests.sim.rules import Rules
from tests.sim.scheduler import CANCELLED, PENDING, Database, Leader, Task
from tests.sim.world import (
    GRANT_MS,
    HEAL_MS,
    NOTICE_MS,
    RETRY_MS,
    SLOW_TICK_MS,
    STEP_MS,
    Profile,
    World,
)

CYCLE_MS = 1_500
RICH_NANO = 10**15

ALL = (
    "crash",
    "crash",
    "reboot",
    "disk",
    "leader",
    "cut",
    "suspect",
    "stop",
    "preempt",
    "price",
    "step",
    "exit",
)
PROFILES = (
    Profile(mishaps=ALL),
    Profile(mishaps=ALL, mishap_every_ms=4_000, late=0.2),
    Profile(mishaps=("crash", "reboot", "suspect", "stop"), mishap_every_ms=6_000),
    Profile(mishaps=("disk", "leader", "stop", "suspect"), mishap_every_ms=6_000, late=0.2),
    Profile(mishaps=("cut", "suspect", "leader", "step"), mishap_every_ms=10_000, late=0.15),
    Profile(mishaps=("price", "stop", "exit", "crash"), poor=0.6, mishap_every_ms=6_000),
    Profile(mishaps=("suspect", "preempt"), loss=0.2, copies=0.2, late=0.2),
    Profile(mishaps=("isolate", "deaf"), mishap_every_ms=12_000, late=0.3, loss=0.25),
    Profile(mishaps=("isolate", "reboot"), mishap_every_ms=5_000, prepare_ms=(0, 15_000)),
    Profile(
        mishaps=(*ALL, "isolate", "deaf"),
        mishap_every_ms=2_000,
        late=0.4,
        loss=0.3,
        copies=0.3,
        prepare_ms=(0, 12_000),
    ),
    Profile(mishaps=("disk", "leader", "crash", "preempt"), mishap_every_ms=2_500, late=0.4),
    Profile(mishaps=("isolate", "suspect"), mishap_every_ms=4_000),
)


class Cluster:
    """Everything of one seed."""

    def __init__(
        self,
        seed: int,
        rules: Rules | None = None,
        *,
        profile: Profile | None = None,
        trace: list[str] | None = None,
        gangs: tuple[int, ...] | None = None,
    ) -> None:
        profile = profile or PROFILES[seed % len(PROFILES)]
        self.world = world = World(seed, profile, trace=trace)
        self.rules = rules or Rules()
        rng = world.rng
        self.oracle = Oracle(world)
        poor = rng.random() < profile.poor
        credit = rng.randrange(30, 400) * 10**6 if poor else RICH_NANO
        self.billing = Billing(world, self.rules, self.oracle, credit)
        self.database = Database()
        self.lease_ids = 0
        self.lost_after_ms = rng.choice((8_000, 15_000, 40_000))
        self.runs_ms: dict[str, int | None] = {}
        self.nodes: dict[str, Node] = {}
        for name in ("n1", "n2"):
            self.nodes[name] = Node(name, world, self.rules, self.oracle, self)
            self.database.generation[name] = 1
        for number, size in enumerate(gangs or rng.choice(((1, 1, 2), (1, 2), (1, 1), (2,)))):
            for rank in range(size):
                task = Task(f"T{number}.{rank}", f"J{number}")
                self.database.tasks[task.task_id] = task
            if rng.random() < 0.2:
                self.billing.budgets[f"J{number}"] = size * rng.randrange(30, 120) * 10**6
        self.leaders: list[Leader] = []
        self.elect()
        for node in self.nodes.values():
            node.boot()
        self._repeat(RETRY_MS, self._ticks)
        self._repeat(SLOW_TICK_MS, self._slow_ticks)
        self._repeat(CYCLE_MS, self._cycles)
        self._repeat(3_000, self.billing.sweep)

    def _repeat(self, every_ms: int, act: object) -> None:
        def again() -> None:
            act()
            self.world.at(every_ms, again)

        self.world.at(self.world.rng.randrange(every_ms), again)

    def _ticks(self) -> None:
        for node in self.nodes.values():
            node.tick()

    def _slow_ticks(self) -> None:
        for node in self.nodes.values():
            node.slow_tick()

    def _cycles(self) -> None:
        for leader in self.leaders:
            leader.cycle()

    # what the parts ask of it

    def elect(self) -> None:
        """A new leader; the old one lives on until it tries to write."""
        self.leaders = [x for x in self.leaders if x.alive][-1:]
        self.leaders.append(Leader(self.world, self.rules, self.oracle, self.database, self))

    def any_leader(self) -> Leader:
        """Mostly the newest; while it lives, now and then the one before."""
        alive = [x for x in self.leaders if x.alive]
        if len(alive) > 1 and not self.world.healed and self.world.rng.random() < 0.4:
            return alive[0]
        return alive[-1]

    def hint(self, node: str) -> None:
        self.world.send("hint", "S", node, self.nodes[node].on_hint)

    def run_ms(self, lease_id: str) -> int | None:
        """How long the workload of a lease would run; None = until it is stopped."""
        if self.world.rng.random() < 0.2:
            return None
        return self.world.rng.randint(*self.world.profile.run_ms)

    # what goes wrong

    def mishap(self) -> None:
        """One thing from the profile's bag; then the next after a while."""
        if self.world.healed:
            return
        rng = self.world.rng
        if self.world.profile.mishaps:
            getattr(self, "do_" + rng.choice(self.world.profile.mishaps))(
                rng.choice(list(self.nodes.values()))
            )
        self.world.at(rng.randrange(1, 2 * self.world.profile.mishap_every_ms), self.mishap)

    def _later(self, node: Node) -> None:
        self.world.at(self.world.rng.choice((100, 2_000, 12_000, GRANT_MS)), node.boot)

    def do_crash(self, node: Node) -> None:
        node.crash()
        self.world.say(f"{node.name}  agent crashes")
        self._later(node)

    def do_reboot(self, node: Node) -> None:
        self.oracle.rebooted(node)
        node.reboot()
        self._later(node)

    def do_disk(self, node: Node) -> None:
        if self.world.rng.random() < 0.5:
            self.oracle.rebooted(node)
            node.reboot()
        node.lose_disk()
        self._later(node)

    def do_leader(self, node: Node) -> None:
        self.elect()

    def do_cut(self, node: Node) -> None:
        self._cut(node, self.world.rng.choice(("S", "B")))

    def do_deaf(self, node: Node) -> None:
        """Renewals go on, the scheduler hears nothing."""
        self._cut(node, "S", 3 * GRANT_MS)

    def do_isolate(self, node: Node) -> None:
        self._cut(node, "S")
        self._cut(node, "B")

    def _cut(self, node: Node, party: str, most_ms: int = 2 * GRANT_MS) -> None:
        link = frozenset((node.name, party))
        self.world.cut.add(link)
        self.world.say(f"{sorted(link)} cut")
        self.world.at(self.world.rng.randrange(2_000, most_ms), self.world.cut.discard, link)

    def _end_one(self, cause: Cause, *, cancel: bool = False) -> None:
        leader = self.leaders[-1]
        active = [x for x in leader.leases.values() if x.state is State.ACTIVE]
        if not active or not leader.alive:
            return
        lease = self.world.rng.choice(active)
        if cancel:
            self.cancel(self.database.tasks[lease.task_id].gang)
        notice_ms = 0 if cause is Cause.NODE_LOST else self.world.rng.choice((0, NOTICE_MS))
        leader.end(lease, cause, notice_ms)

    def cancel(self, gang: str) -> None:
        for task in list(self.database.tasks.values()):
            if task.gang == gang:
                state = CANCELLED if task.state == PENDING else task.state
                self.database.tasks[task.task_id] = Task(
                    task.task_id, gang, state, task.attempt, cancelled=True
                )

    def do_suspect(self, node: Node) -> None:
        self._end_one(Cause.NODE_LOST)

    def do_stop(self, node: Node) -> None:
        self._end_one(Cause.STOPPED, cancel=True)

    def do_preempt(self, node: Node) -> None:
        self._end_one(Cause.PREEMPTED)

    def do_price(self, node: Node) -> None:
        self.billing.quote = Quote(self.world.rng.choice(RATES_NANO), self.world.rng.randrange(3))

    def do_step(self, node: Node) -> None:
        self.billing.stepped_ms = self.world.rng.choice((-STEP_MS, 0, STEP_MS)) // 2

    def do_exit(self, node: Node) -> None:
        for sandbox in list(node.sandboxes.values()):
            node._exit(sandbox, self.world.rng.choice((0, 1)), "EXITED")

    # one run

    def run(self) -> Cluster:
        """Faults, healing, rest; raises ``Violation`` where an invariant breaks."""
        self.world.at(1_000, self.mishap)
        self.world.run_until(self.world.profile.faults_ms)
        self.heal()
        self.world.run_until(self.world.now + HEAL_MS)
        self.oracle.at_rest(self)
        return self

    def heal(self) -> None:
        self.world.say("--  healed")
        self.world.heal()
        self.billing.budgets.clear()  # running out of money is a fault too
        self.billing.credit_nano = RICH_NANO
        self.leaders = self.leaders[-1:]
        for node in self.nodes.values():
            node.boot()
            node.sync()


def run(seed: int, rules: Rules | None = None) -> Cluster:
    """One seed from start to rest."""
    return Cluster(seed, rules).run()
