"""Cores, shares and disk rate of real sandboxes, by the cgroups' own files and by the clock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.isolate import cgroups, cores
from gridlease_agent.isolate.cores import CoreTable
from gridlease_agent.isolate.ground import Ground
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline, Sandboxes
from gridlease_kernel.faults import Unreachable

from tests.integration.sandbox.conftest import Bench, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores"),
]
_ALLOWED = "while true; do grep Cpus_allowed_list /proc/self/status; sleep 0.1; done"


class _Node(Bench):
    """A bench that stands on a ground."""

    def on(self, ground: Ground) -> _Node:
        ground.adopt()
        self.ground = ground
        self.sandboxes = Sandboxes(self.state_dir, self.runtime, ground=ground)
        return self

    def close(self) -> None:
        """Those that were refused have a folder, and nothing in it to end."""
        for lease_id in self.sandboxes.list():
            if not (self.folder(lease_id) / "spec.json").exists():
                self.folder(lease_id).rename(self.state_dir / lease_id)
        super().close()

    def sees(self, lease_id: str) -> str:
        """The CPUs that the task may use, by its last word."""
        lines = self.log(lease_id).splitlines()
        return lines[-1].split()[-1] if lines else ""


@pytest.fixture
def node(state_folder: Path, crun_runtime: Runtime) -> Iterator[_Node]:
    made = _Node(state_folder, crun_runtime)
    yield made.on(_ground(state_folder))
    made.close()


def _ground(state: Path, io_bytes_per_s: int = 0) -> Ground:
    table = CoreTable(cores.layout()[:2], state / "leases")
    return Ground(state / "leases", table, None, io_bytes_per_s)


def test_who_shares_gives_way_to_who_is_alone_and_comes_back(node: _Node) -> None:
    one, two = (str(core[0]) for core in cores.layout()[:2])
    shared = node.start(_ALLOWED)
    node.says(shared, f"{one}-{two}")
    alone = node.start(_ALLOWED, core_tag=True)
    wait_for(lambda: node.sees(alone) == two and node.sees(shared) == one)
    with pytest.raises(Unreachable) as caught:
        node.start(_ALLOWED, core_tag=True)
    assert caught.value.reason == "NO_FREE_CORE"
    # As after a crash: a new agent knows from the plans who has which core.
    node.on(_ground(node.state_dir))
    with pytest.raises(Unreachable):
        node.start(_ALLOWED, core_tag=True)
    node.sandboxes.kill(alone)
    node.exited(alone)
    node.sandboxes.remove(alone)
    wait_for(lambda: node.sandboxes.list() and node.sees(shared) == f"{one}-{two}")


def test_leases_weigh_together_more_than_the_host(node: _Node) -> None:
    lease_id = node.start("echo up; sleep 60", cpu_milli=500)
    node.says(lease_id, "up")
    if cgroups.mode() is cgroups.CgroupMode.V2:
        assert (cgroups.ROOT / "gridlease/cpu.weight").read_text() == "10000\n"
        return
    root = cgroups.ROOT / "cpu"
    assert (root / "gridlease/cpu.shares").read_text() == "131072\n"
    assert (root / node.cgroup(lease_id) / "cpu.shares").read_text() == "512\n"


def test_the_disks_rate_is_limited(node: _Node, state_folder: Path) -> None:
    if not cgroups.disk_of(state_folder):
        pytest.skip("the state folder is on no disk that can be limited")
    node.on(_ground(state_folder, 2 << 20))
    script = "dd if=/dev/zero of=x bs=256k count=16 oflag=direct 2>&1"  # 4 MiB: 2 s
    record, log = node.run(script)
    assert record.exit_code == 0, log
    started = node.sandboxes.inspect(node.sandboxes.list()[-1])
    took_ns = record.ended_boottime_ns - started.started_boottime_ns
    assert took_ns > 1_200_000_000, log


def test_cores_are_read_from_the_hosts_files(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    assert cores.layout(tmp_path, {0, 1, 2, 3}) == ((0, 2), (1, 3))
    assert cores.layout(tmp_path, {0, 1, 2}) == ((0, 2),), "half a core is nobody's alone"


def test_a_spec_of_its_own_cpus_is_left_alone(node: _Node) -> None:
    first = str(cores.layout()[0][0])
    spec = SandboxSpec("ls-own", ("/bin/true",), cpus=first)
    node.sandboxes.start("ls-own", spec, Deadline.after(10_000, 0))
    assert node.exited("ls-own").record.exit_code == 0
