"""Devices in sandboxes under real crun: what is granted opens, and nothing else does.

The family and its hosts are fixtures; their nodes are real character devices of this kernel, under
a root of the tests' own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gridlease_agent.devices import cdi
from gridlease_agent.devices.discover import discover
from gridlease_agent.devices.family import load
from gridlease_agent.runtimes import devices
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.devices import DeviceTable
from gridlease_agent.runtimes.spec import UID_RANGE, SandboxSpec
from gridlease_agent.sandbox import Sandboxes
from gridlease_kernel.faults import Precondition

from tests.integration.sandbox.conftest import Bench

_FUSE = os.makedev(10, 229)  # opens for anybody who has the node and the rule; does nothing
_FAMILY = """
name = "mock"
family = "gpu"
vendor = "mock"
kind = "mock.example/gpu"
present = ["sys/class/mock"]
[list]
glob = "sys/class/mock/*"
[list.fields]
index = {{ pattern = 'mock(\\d+)' }}
id = {{}}
[hand]
nodes = ["/dev/mock{{index}}"]
shared_nodes = ["/dev/mockctl"]
mounts = ["/opt/mock/libmock.so.*"]
{more}
[hand.env]
MOCK_VISIBLE = "all"
"""
_LOOK = """
for name in /dev/mock0 /dev/mock1 /dev/mockctl; do
  if [ -c $name ]; then
    if (: <>$name) 2>/tmp/why; then echo "$name opens"
    elif grep -q "Operation not permitted" /tmp/why; then echo "$name EPERM"
    else cat /tmp/why; fi
  else echo "$name is no device"; fi
done
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A host's root with two mock devices; the mapped user can enter it, as it can /dev."""
    if os.geteuid() != 0:
        pytest.skip("makes device nodes, so it needs root")
    folder = Path(tempfile.mkdtemp(prefix="gridlease-devices-", dir="/var/tmp"))
    folder.chmod(0o755)
    for name in ("sys/class/mock/mock0", "sys/class/mock/mock1", "dev", "opt/mock"):
        (folder / name).mkdir(parents=True)
    (folder / "opt/mock/libmock.so.1").write_text("the driver's library")
    for name in ("mock0", "mock1", "mockctl"):
        _node(folder / "dev" / name, _FUSE)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _node(path: Path, number: int, mode: int = 0o666, gid: int = 0) -> None:
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFCHR | mode, number)
    path.chmod(mode)
    os.chown(path, 0, gid)


Make = Callable[..., Bench]


@pytest.fixture
def make(crun_runtime: Runtime, state_folder: Path, root: Path) -> Make:
    def build(more: str = "", hooks: frozenset[str] = frozenset()) -> Bench:
        folder = root / "families"
        folder.mkdir(exist_ok=True)
        (folder / "mock.toml").write_text(_FAMILY.format(more=more))
        families = load(folder)
        table = DeviceTable(families, discover(root, families, {}), hooks, root)
        bench = Bench(state_folder, crun_runtime)
        bench.sandboxes = Sandboxes(state_folder, crun_runtime, table=table)
        return bench

    return build


def _said(bench: Bench, script: str, **parts: object) -> list[str]:
    lease_id = bench.start(script, **parts)
    end = bench.exited(lease_id).record
    log = bench.log(lease_id)
    assert end.exit_code == 0, (end.message, log)
    return log.splitlines()


def test_the_device_that_was_granted_opens_and_the_others_are_not_there(make: Make) -> None:
    said = _said(
        make(),
        _LOOK + 'echo "$MOCK_VISIBLE"; cat /opt/mock/libmock.so.1; echo; '
        "test ! -w /opt/mock/libmock.so.1 && echo read-only",
        devices=("mock0",),
    )
    assert said == [
        "/dev/mock0 opens",
        "/dev/mock1 is no device",
        "/dev/mockctl opens",
        "all",
        "the driver's library",
        "read-only",
    ]


def test_without_its_rule_a_node_that_is_there_does_not_open(
    make: Make, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule bites by itself: the second node is bound, as by a flaw, and not allowed."""
    _node(root / "dev/mock1", os.makedev(10, 237))
    true_given = devices.given

    def leaky(plan, spec: SandboxSpec, table: DeviceTable):
        plan = true_given(plan, spec, table)
        extra = devices._bound({"path": "/dev/mock1", "hostPath": str(root / "dev/mock1")})
        plan["oci"]["mounts"].append(extra)
        return plan

    monkeypatch.setattr(devices, "given", leaky)
    assert _said(make(), _LOOK, devices=("mock0",)) == [
        "/dev/mock0 opens",
        "/dev/mock1 EPERM",
        "/dev/mockctl opens",
    ]


def test_a_task_without_devices_has_none(make: Make) -> None:
    said = _said(make(), _LOOK + 'echo "[$MOCK_VISIBLE]"')
    assert said[:3] == [f"/dev/{x} is no device" for x in ("mock0", "mock1", "mockctl")]
    assert said[3] == "[]"


def test_a_node_of_a_group_opens_for_the_task_that_was_granted_it(make: Make, root: Path) -> None:
    _node(root / "dev/mock0", _FUSE, 0o660, 44)
    said = _said(make(), _LOOK + "id -G", devices=("mock0",))
    assert said[0] == "/dev/mock0 opens"
    assert str(UID_RANGE) in said[3].split(), "the host's group, under a number of its own"


def test_a_node_that_only_root_opens_and_a_plain_file_are_refused(make: Make, root: Path) -> None:
    bench = make()
    _node(root / "dev/mock0", _FUSE, 0o600)
    with pytest.raises(Precondition) as caught:
        bench.start(_LOOK, devices=("mock0",))
    assert caught.value.reason == "DEVICE_NODE_CLOSED"
    (root / "dev/mock0").unlink()
    (root / "dev/mock0").write_text("left behind by a shell where the driver was missing")
    with pytest.raises(Precondition) as caught:
        bench.start(_LOOK, devices=("mock0",))
    assert caught.value.reason == "DEVICE_NODE_INVALID"
    with pytest.raises(Precondition) as caught:
        bench.start(_LOOK, devices=("mock7",))
    assert caught.value.reason == "NO_SUCH_DEVICE"


def test_a_vendors_hook_is_not_moved_by_a_hostile_image(make: Make, root: Path) -> None:
    """Its environment, its program and its working are the host's, whatever the task brings."""
    told, program = root / "told", root / "hook"
    program.write_text(f"#!/bin/sh\nenv | sort > {told}\n")
    program.chmod(0o755)
    told.touch()
    told.chmod(0o666)  # a hook of this kind runs as the sandbox's mapped root
    more = f"""
[[hand.hooks]]
hookName = "createContainer"
path = "{program}"
args = ["hook"]
env = ["LD_PRELOAD=/work/evil.so"]
"""
    evil = tuple(
        (name, "/work/evil.so")
        for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "BASH_ENV", "ENV")
    )
    bench = make(more)
    with pytest.raises(Precondition) as caught:
        bench.start("true", devices=("mock0",), env=evil)
    assert caught.value.reason == "HOOK_NOT_ALLOWED"
    allowed = frozenset({hashlib.sha256(program.read_bytes()).hexdigest()})
    bench = make(more, allowed)
    bench.exited(bench.start("/bin/true", devices=("mock0",), env=evil))
    names = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert names.pop("PATH") == "/usr/bin:/bin"
    assert set(names) <= {"PWD", "SHLVL", "_", "OLDPWD"}
    assert not [text for text in names.values() if "evil" in text]
    program.chmod(0o777)
    with pytest.raises(Precondition) as caught:
        bench.start("true", devices=("mock0",))
    assert caught.value.reason == "HOOK_NOT_ALLOWED", "anybody could swap it"


def test_bubblewrap_hands_no_device_over(bwrap_runtime: Runtime, state_folder: Path) -> None:
    bench = Bench(state_folder, bwrap_runtime)
    with pytest.raises(Precondition) as caught:
        bench.start("true", devices=("mock0",))
    assert caught.value.reason == "DEVICES_NEED_CRUN"


def test_a_document_names_the_groups_that_its_nodes_need(root: Path) -> None:
    _node(root / "dev/mock1", _FUSE, 0o660, 44)
    folder = root / "families"
    folder.mkdir()
    (folder / "mock.toml").write_text(_FAMILY.format(more=""))
    families = load(folder)
    (document,) = cdi.documents(families, discover(root, families, {}), root)
    edits = [device["containerEdits"] for device in document["devices"]]
    assert ["additionalGids" in each for each in edits] == [False, True]
    assert edits[1]["additionalGids"] == [44]
