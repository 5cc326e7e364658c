"""CDI documents and their merge into an OCI configuration."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.devices import cdi
from gridlease_agent.devices.discover import discover
from gridlease_agent.devices.family import load
from gridlease_kernel.faults import Precondition

from tests.unit.agent_devices.hosts import TREES, grow

_CONFIG: dict[str, Any] = {
    "process": {"env": ["PATH=/bin"]},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}], "memory": {}}},
}


def _numbered(entry: os.stat_result) -> os.stat_result:
    """As if the fixture's plain file were the character device 195:7."""
    parts = list(entry)
    parts[0] = stat.S_IFCHR | 0o666
    extra = {"st_rdev": os.makedev(195, 7)}
    return os.stat_result(parts, extra)


@pytest.fixture(autouse=True)
def nodes_are_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.stat

    def seen(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        entry = real(self, follow_symlinks=follow_symlinks)
        inside = "/dev/" in str(self) and stat.S_ISREG(entry.st_mode) and self.name != "plain"
        return _numbered(entry) if inside else entry

    monkeypatch.setattr(Path, "stat", seen)


@pytest.mark.parametrize("family", list(TREES))
def test_every_family_makes_a_document_that_merges(tmp_path: Path, family: str) -> None:
    root = grow(tmp_path, family)
    devices = discover(root, listers={})
    made = cdi.documents(load(), devices, root)
    assert [document["cdiVersion"] for document in made] == [cdi.VERSION]
    json.dumps(made)
    one = devices[0]
    config = cdi.merged(_CONFIG, cdi.edits_of([cdi.qualified(one)], made))
    assert [node["path"] for node in config["linux"]["devices"]] == list(one.nodes)
    rules = config["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}, "nothing is allowed that is not named"
    assert len(rules) == 1 + len(one.nodes)
    assert all(rule["allow"] and rule["access"] == "rw" for rule in rules[1:])
    assert config["linux"]["resources"]["memory"] == {}


def test_the_given_configuration_stays_and_shared_nodes_come_once(tmp_path: Path) -> None:
    root = grow(tmp_path, "nvidia")
    devices = discover(root, listers={})
    before = json.dumps(_CONFIG, sort_keys=True)
    made = cdi.documents(load(), devices, root)
    config = cdi.merged(_CONFIG, cdi.edits_of(map(cdi.qualified, devices), made))
    assert json.dumps(_CONFIG, sort_keys=True) == before
    paths = [node["path"] for node in config["linux"]["devices"]]
    assert sorted(paths) == sorted({node for device in devices for node in device.nodes})
    (mount,) = [x for x in config["mounts"] if "libcuda" in x["destination"]]
    assert mount["options"][0] == "ro"
    assert "NVIDIA_VISIBLE_DEVICES=void" in config["process"]["env"]


def test_one_familys_libraries_do_not_reach_another_of_the_same_kind(tmp_path: Path) -> None:
    root = grow(tmp_path, "nvidia", "jetson")
    devices = discover(root, listers={})
    made = cdi.documents(load(), devices, root)
    assert len(made) == 1
    board = next(x for x in devices if x.family == "jetson")
    config = cdi.merged(_CONFIG, cdi.edits_of([cdi.qualified(board)], made))
    assert not [x for x in config["mounts"] if "libcuda" in x["destination"]]


def test_an_unknown_device_and_a_plain_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Precondition) as caught:
        cdi.edits_of(["nvidia.com/gpu=GPU-9"], ())
    assert caught.value.reason == "NO_SUCH_DEVICE"
    with pytest.raises(Precondition) as caught:
        cdi.merged(_CONFIG, [{"deviceNodes": [{"path": "/dev/nvidia0"}]}])
    assert caught.value.reason == "DEVICE_NODE_INVALID"


def test_hooks_run_only_by_digest_and_without_an_environment(tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\n")
    hook = {"hookName": "createContainer", "path": str(program), "env": ["LD_PRELOAD=/evil.so"]}
    with pytest.raises(Precondition) as caught:
        cdi.merged(_CONFIG, [{"hooks": [hook]}])
    assert caught.value.reason == "HOOK_NOT_ALLOWED"
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    config = cdi.merged(_CONFIG, [{"hooks": [hook]}], {digest})
    (given,) = config["hooks"]["createContainer"]
    assert given["env"] == ["PATH=/usr/bin:/bin"]
    program.write_text("#!/bin/sh\nevil\n")
    with pytest.raises(Precondition):
        cdi.merged(_CONFIG, [{"hooks": [hook]}], {digest})
