"""The shim's parts that need no sandbox: files, cgroup reading, counting, and its promises."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest
from gridlease_agent import shim
from gridlease_agent.sandbox import scrub


def test_it_imports_nothing_but_the_standard_library():
    tree = ast.parse(Path(shim.__file__).read_text("utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names <= set(sys.stdlib_module_names)


def test_json_is_whole_or_absent(tmp_path):
    path = str(tmp_path / "a.json")
    assert shim.read_json(path) is None
    shim.write_json(path, {"a": 1})
    assert shim.read_json(path) == {"a": 1}
    (tmp_path / "a.json").write_text("{half")
    assert shim.read_json(path) is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json"]


def test_a_folder_is_claimed_once(tmp_path):
    assert shim.claim(str(tmp_path), os.getpid())
    assert not shim.claim(str(tmp_path), os.getpid())
    own = shim.read_json(str(tmp_path / "shim.json"))
    assert own == {
        "boot_id": shim.boot_id(),
        "pid": os.getpid(),
        "start_ticks": shim.start_ticks(os.getpid()),
    }


def test_identity_of_processes():
    assert shim.start_ticks(os.getpid()) > 0
    assert shim.start_ticks(2**22 + 1) == 0
    assert shim.state_letter(2**22 + 1) == "X"


def _cgroup(tmp_path, monkeypatch, *, v2: bool) -> shim.Cgroup:
    monkeypatch.setattr(shim, "CGROUPS", str(tmp_path))
    if v2:
        (tmp_path / "cgroup.controllers").touch()
        (tmp_path / "gridlease/x").mkdir(parents=True)
    else:
        for kind in ("freezer", "pids", "memory", "cpuacct", "cpu", "unified"):
            (tmp_path / kind / "gridlease/x").mkdir(parents=True)
    return shim.Cgroup("gridlease/x")


def test_v2_counters(tmp_path, monkeypatch):
    cgroup = _cgroup(tmp_path, monkeypatch, v2=True)
    folder = tmp_path / "gridlease/x"
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 2\noom_group_kill 0\n")
    (folder / "cpu.stat").write_text("usage_usec 7\nuser_usec 3\n")
    (folder / "memory.peak").write_text("123\n")
    (folder / "cgroup.procs").write_text("")
    assert cgroup.oom_kills() == 2
    assert cgroup.cpu_ns() == 7000
    assert cgroup.max_memory_bytes() == 123
    assert cgroup.pids() == []
    (folder / "cgroup.kill").touch()
    cgroup.kill()
    assert (folder / "cgroup.kill").read_text() == "1"


def test_v1_counters(tmp_path, monkeypatch):
    cgroup = _cgroup(tmp_path, monkeypatch, v2=False)
    folder = tmp_path / "memory/gridlease/x"
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (tmp_path / "cpuacct/gridlease/x/cpuacct.usage").write_text("99\n")
    assert cgroup.oom_kills() == 3
    assert cgroup.cpu_ns() == 99
    assert not any("unified" in folder for folder in cgroup.left())


def test_no_cgroup_counts_nothing():
    cgroup = shim.Cgroup("")
    assert (cgroup.oom_kills(), cgroup.cpu_ns(), cgroup.pids(), cgroup.left()) == (0, 0, [], [])
    assert cgroup.remove()


def test_usage_counts_hard_links_once_and_follows_no_link(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "sub/a", tmp_path / "b")
    (tmp_path / "link").symlink_to("/usr")
    results = [result for result in shim.walk_usage(str(tmp_path)) if result]
    used, files = results[-1]
    assert 100_000 <= used < 130_000
    assert files == 4


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7 << 8, 7), (9, 137), (15, 143)])
def test_wait_codes(status, code):
    assert shim.wait_code(status) == code


def test_scrub_keeps_what_is_asked_and_no_link(tmp_path):
    work, outside = tmp_path / "work", tmp_path / "outside"
    (work / "a/b").mkdir(parents=True)
    outside.mkdir()
    (outside / "theirs").touch()
    (work / "a/b/keep").touch()
    (work / "a/drop").touch()
    (work / "evil").symlink_to(outside)
    (work / "folder").symlink_to(outside)
    scrub(work, ["a/b", "evil", "../outside", "/etc", "folder/theirs"])
    assert sorted(str(p.relative_to(work)) for p in work.rglob("*")) == ["a", "a/b", "a/b/keep"]
    assert (outside / "theirs").exists()
