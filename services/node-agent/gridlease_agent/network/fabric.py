"""The fabric: a network namespace between tasks and uplinks, told by ``ip`` and ``tc`` in batches.

One fork tells the kernel any number of things (a class by itself costs a fork of 10 ms). Needs
root. Counters of a task's interface are its meter: what it sent is what the fabric received.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Precondition, Unreachable

from gridlease_agent.domain import traffic as told
from gridlease_agent.domain.traffic import Traffic, Uplink

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Bytes:
    """Of one task since its interface was made."""

    sent: int
    received: int


class Fabric:
    """One namespace with its uplinks (already in it) and the tasks behind it."""

    def __init__(self, name: str, uplinks: Sequence[Uplink]) -> None:
        """Raises Precondition: NO_IPROUTE2."""
        self.name = name
        self._uplinks = {uplink.name: uplink for uplink in uplinks}
        self._working = [uplink.name for uplink in uplinks]
        self._tasks: dict[str, Traffic] = {}
        for program in ("ip", "tc"):
            if shutil.which(program) is None:
                raise Precondition(
                    f"{program} is needed to give tasks a network.",
                    reason="NO_IPROUTE2",
                    field="network",
                    remedy="Install it on the node: apt-get install -y iproute2.",
                )

    def open(self) -> None:
        """Forward between interfaces, and make every uplink share its rate."""
        self._in_namespace(
            ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
             "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.all.disable_ipv6=1",
             "net.ipv4.conf.all.ignore_routes_with_linkdown=1"]
        )  # fmt: skip
        # A task's packets meet its own table before the fabric's own addresses: those are no
        # more reached than another tenant's. Nothing asks for addresses, so nothing is amiss.
        self._ip(["rule add pref 30000 lookup local", "rule del pref 0"])
        self._tc([line for uplink in self._uplinks.values() for line in told.uplink_lines(uplink)])

    def admit(self, task: Traffic, namespace: str) -> None:
        """Give the task's namespace its interface (``eth0``), routes and classes.

        Raises:
            Unreachable: NETWORK_REFUSED, with the kernel's words.
        """
        inner, (near_mac, far_mac) = f"i{task.slot}", task.macs
        self._ip(
            [
                f"link add {task.interface} address {near_mac} type veth "
                f"peer name {inner} address {far_mac}",
                f"link set {inner} netns {namespace}",
                f"addr add {task.gateway}/31 dev {task.interface}",
                f"link set {task.interface} up",
                f"neigh replace {task.address} lladdr {far_mac} dev {task.interface} nud permanent",
                *told.route_lines(task, self._uplinks, self._working),
                *told.rule_lines(task),
            ]
        )
        told_to(
            ["ip", "-n", namespace, "-batch", "-"],
            [
                f"link set {inner} name eth0",
                "link set eth0 addrgenmode none",  # no IPv6: not a byte that is not the task's
                f"addr add {task.address}/31 dev eth0",
                "link set lo up",
                "link set eth0 up",
                f"neigh replace {task.gateway} lladdr {near_mac} dev eth0 nud permanent",
                f"route replace default via {task.gateway}",
            ],
        )
        self._tc([x for up in self._uplinks.values() for x in told.class_lines(up, task)])
        self._tasks[task.lease_id] = task

    def adopt(self, task: Traffic) -> None:
        """A task that is on the fabric already."""
        self._tasks[task.lease_id] = task

    def join(self, lease_ids: Iterable[str]) -> None:
        """Let the tasks of one gang reach each other; nobody else can."""
        members = [self._tasks[lease_id] for lease_id in lease_ids]
        self._ip([line for one in members for line in told.neighbours(one, members)])

    def release(self, lease_id: str) -> None:
        """Take everything of a task away; a task unknown here is no error."""
        task = self._tasks.pop(lease_id, None)
        if task is None:
            return
        gone = [*told.rule_gone_lines(task), f"link del {task.interface}"]
        for line in gone:
            try:
                self._ip([line])
            except Unreachable as trouble:  # the namespace's end may have taken it already
                _LOG.debug("%s: %s", line, trouble)
        lines = [x for up in self._uplinks.values() for x in told.class_gone_lines(up, task)]
        told_to(["tc", "-n", self.name, "-force", "-batch", "-"], lines, may_fail=True)

    def path_changed(self, name: str, *, works: bool) -> None:
        """An uplink is known to be dead beyond its own link, or is back: told in one batch."""
        alive = {x for x in self._working if x != name} | ({name} if works else set())
        self._working = [x for x in self._uplinks if x in alive]
        tasks = self._tasks.values()
        if works:
            self._ip(
                [
                    line
                    for task in tasks
                    for line in told.route_lines(task, self._uplinks, self._working)
                ]
            )
        else:
            gone = [line for task in tasks for line in told.path_gone_lines(task, name)]
            told_to(["ip", "-n", self.name, "-force", "-batch", "-"], gone, may_fail=True)

    def counted(self, lease_id: str) -> Bytes:
        """What the task has sent and received so far; the meter of its traffic."""
        task = self._tasks[lease_id]
        out = told_to(["ip", "-n", self.name, "-s", "-o", "link", "show", task.interface])
        words = out.replace("\\", "\n").split("\n")
        received, sent = (
            int(words[at + 1].split()[0])
            for mark in ("RX:", "TX:")
            for at, line in enumerate(words)
            if line.strip().startswith(mark)
        )
        return Bytes(sent=received, received=sent)

    def _ip(self, lines: Sequence[str]) -> None:
        if lines:
            told_to(["ip", "-n", self.name, "-batch", "-"], lines)

    def _tc(self, lines: Sequence[str]) -> None:
        if lines:
            told_to(["tc", "-n", self.name, "-batch", "-"], lines)

    def _in_namespace(self, command: Sequence[str]) -> None:
        told_to(["ip", "netns", "exec", self.name, *command])


def namespaces() -> list[str]:
    """Those that ``ip netns`` knows."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def told_to(command: Sequence[str], lines: Sequence[str] = (), *, may_fail: bool = False) -> str:
    """Run a program with these lines as its input; what it says.

    Raises:
        Unreachable: NETWORK_REFUSED.
    """
    try:
        done = subprocess.run(
            command,
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as trouble:
        raise _refused(str(trouble)) from trouble
    if done.returncode != 0 and not may_fail:
        raise _refused(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def _refused(why: str) -> Unreachable:
    return Unreachable(
        f"The kernel refused a change of the network: {why}",
        reason="NETWORK_REFUSED",
        field="network",
        remedy="It is tried again; check that the node's kernel has veth, HTB and u32.",
    )
