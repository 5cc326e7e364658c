"""The static keeper's parts that need no sandbox: its build, its JSON, its counting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from gridlease_agent.keeper import build

STRICT = ("-std=c11", "-D_GNU_SOURCE", "-O2", *build.WARNINGS)


@pytest.fixture(scope="module")
def keeper(tmp_path_factory):
    made = build.keeper_for(tmp_path_factory.mktemp("keeper"))
    if not made.program:
        pytest.skip(made.why)
    return made.program


def _check(keeper, *words):
    return subprocess.run([keeper, "--check", *map(str, words)], capture_output=True, check=False)


def test_the_sources_are_free_of_warnings(tmp_path, keeper):
    compiler = build._compiler()
    build.compile_to(compiler, tmp_path / "keeper", (*STRICT, "-static"))


def test_it_is_built_once_and_the_cache_serves_the_next_folder(tmp_path, keeper, monkeypatch):
    cache = tmp_path / "cache"
    first = build.keeper_for(tmp_path / "a", cache=cache)
    monkeypatch.setattr(build, "_compile", lambda *_words: pytest.fail("compiled twice"))
    assert build.keeper_for(tmp_path / "a", cache=cache) == first
    second = build.keeper_for(tmp_path / "b", cache=cache)
    assert Path(second.program).parent.parent == tmp_path / "b"
    assert sorted(path.name for path in cache.iterdir()) == [Path(first.program).name]


def test_a_cache_that_others_can_write_is_not_believed(tmp_path, keeper):
    cache = tmp_path / "cache"
    made = Path(build.keeper_for(tmp_path / "a", cache=cache).program)
    evil = cache / made.name
    evil.unlink()
    evil.write_text("#!/bin/sh\necho 1\n")
    evil.chmod(0o777)
    again = build.keeper_for(tmp_path / "b", cache=cache)
    assert Path(again.program).read_bytes()[:4] == b"\x7fELF"


def test_without_a_compiler_python_keeps_and_says_why(tmp_path):
    made = build.keeper_for(tmp_path, compiler="")
    assert not made.holds
    assert made.unenforced() == (
        "keeper: in Python, without warm sandboxes: this host has no C compiler",
    )
    assert "shim" in " ".join(made.argv(tmp_path))


def test_a_compiler_that_fails_is_no_disaster(tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'x.c:1: error: no static libc' >&2\nexit 1\n")
    broken.chmod(0o755)
    made = build.keeper_for(tmp_path / "state", compiler=str(broken), cache=tmp_path / "cache")
    assert "no static libc" in made.why


GOOD = [
    "{}",
    '{"a": [1, -2, 3.5e+2, true, false, null, {"b": []}]}',
    json.dumps({"text": 'quote " back \\ tab \t nul-free é 漢 😀', "é": 1}),
    json.dumps({"text": "é 漢 😀 \x7f \x1f"}, ensure_ascii=False),
    '{"same": 1, "same": 2}',
    '{"deep": ' + "[" * 60 + "]" * 60 + "}",
]
BAD = [
    "", " ", "[]", "1", "{", '{"a"', '{"a":', '{"a": 1', '{"a": 1,}', '{"a": 01}', '{"a": +1}',
    '{"a": 1.}', '{"a": .5}', '{"a": 1e}', '{"a": tru}', '{"a": "\\x"}', '{"a": "\\u12"}',
    '{"a": "\\ud800"}', '{"a": "\\udc00x"}', '{"a": "\\ud800\\u0041"}', '{"a": "\n"}', '{"a" 1}',
    "{} x", "{'a': 1}", "{1: 2}", '{"a": NaN}', '{"a": ' + "[" * 100000, '{"deep": ' + "[" * 70
    + "]" * 70 + "}", '{"a": "\\', '{"a": "\\u', "{]", '{"a": [1 2]}', "\ufeff{}",
]  # fmt: skip
RAW = [
    b'{"a": "\xff"}', b'{"a": "\xc0\x80"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xf4\x90\x80\x80"}',
           b'{"a": "\xe6\xbc', b'{"a": 1}\x00', b"\x00", b'{"a": "\x00"}']  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_json_is_read_as_python_reads_it(tmp_path, keeper, text):
    path = tmp_path / "a.json"
    path.write_text(text, "utf-8")
    done = _check(keeper, "json", path)
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(text)


@pytest.mark.parametrize("text", [*(bad.encode() for bad in BAD), *RAW])
def test_what_is_no_json_is_refused(tmp_path, keeper, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert _check(keeper, "json", path).returncode == 1


def test_every_beginning_of_a_record_is_refused(tmp_path, keeper):
    path = tmp_path / "a.json"
    whole = json.dumps({"a": [1, {"b": "é\\ud83d"}], "c": None})
    for length in range(len(whole)):
        path.write_text(whole[:length])
        assert _check(keeper, "json", path).returncode == 1, whole[:length]


def test_a_link_or_a_fifo_is_no_record(tmp_path, keeper):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "link").symlink_to("a.json")
    os.mkfifo(tmp_path / "fifo")
    assert _check(keeper, "json", tmp_path / "link").returncode == 1
    assert _check(keeper, "json", tmp_path / "fifo").returncode == 1


def test_clocks_do_not_wrap(keeper):
    lowest, highest = -(2**63), 2**63 - 1
    assert _check(keeper, "clocks").stdout.split() == [
        str(each).encode() for each in (lowest, highest, highest)
    ]


def test_usage_counts_hard_links_once_and_follows_no_link(tmp_path, keeper):
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "sub/a").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "sub/a", tmp_path / "b")
    (tmp_path / "link").symlink_to("/usr")
    for number in range(600):
        (tmp_path / f"sub/deep/{number}").touch()
        os.link(tmp_path / f"sub/deep/{number}", tmp_path / f"sub/deep/again-{number}")
    used, files, beyond = map(int, _check(keeper, "usage", tmp_path).stdout.split())
    assert 100_000 <= used < 250_000
    assert (files, beyond) == (5 + 1200, 0)


def test_a_path_too_long_to_be_opened_is_told(tmp_path, keeper):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert _check(keeper, "usage", tmp_path).stdout.split()[2] == b"1"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("v2", [False, True])
def test_cgroup_counters(tmp_path, keeper, v2):
    if v2:
        folder = tmp_path / "gridlease/x"
        folder.mkdir(parents=True)
        (tmp_path / "cgroup.controllers").touch()
        (folder / "memory.events").write_text("low 0\noom 1\noom_kill 2\noom_group_kill 0\n")
        (folder / "cpu.stat").write_text("usage_usec 7\nuser_usec 3\n")
        (folder / "memory.peak").write_text("123\n")
        (folder / "cgroup.kill").touch()
    else:
        for kind in ("memory", "cpuacct"):
            (tmp_path / kind / "gridlease/x").mkdir(parents=True)
        (tmp_path / "memory/gridlease/x/memory.oom_control").write_text("under_oom 0\noom_kill 2\n")
        (tmp_path / "cpuacct/gridlease/x/cpuacct.usage").write_text("7000\n")
        (tmp_path / "memory/gridlease/x/memory.max_usage_in_bytes").write_text("123\n")
    assert _check(keeper, "cgroup", tmp_path, "gridlease/x").stdout == b"2 7000 123\n"
    if v2:
        assert (tmp_path / "gridlease/x/cgroup.kill").read_text() == "1"


def test_it_builds_for_arm(tmp_path):
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        pytest.skip("needs gcc-aarch64-linux-gnu and qemu-user")
    build.compile_to(compiler, tmp_path / "keeper", (*STRICT, "-static"))
    done = subprocess.run(
        [emulator, tmp_path / "keeper", "--check", "contract"], capture_output=True, check=True
    )
    assert done.stdout == b"1\n"
