"""Programs beside a task: what they are given, what they may, and how they end."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import grpc.aio
import pytest
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually

from tests.integration.session.conftest import LEASE, Inside, read, send

pytestmark = pytest.mark.asyncio(loop_scope="module")


def of(inside: Inside, mark: str) -> list[int]:
    """The host's processes whose command line has ``mark``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in command and os.fsencode(inside.agent.state) not in command:
            found.append(int(entry.name))
    return found


async def test_it_is_the_tasks_sandbox(inside: Inside) -> None:
    said = await inside.run(
        "/bin/sh", "-c", "cat /proc/self/status; id -u; pwd; echo $GRIDLEASE_JOB $MINE; exit 7",
        env={"MINE": "own"},
    )  # fmt: skip
    assert said.code == 7, said.stderr
    rows = dict(line.split(":\t", 1) for line in said.stdout.decode().splitlines() if ":\t" in line)
    assert rows["CapBnd"] == rows["CapEff"] == "0" * 16
    assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")
    assert said.stdout.decode().splitlines()[-3:] == [
        "1000", "/work", "projects/demo/jobs/j-ls-1 own"
    ]  # fmt: skip


async def test_it_counts_in_the_sandboxs_cgroup(inside: Inside) -> None:
    call = await inside.start("sleep", "61.5")
    await eventually(lambda: of(inside, "61.5"))
    pid = of(inside, "61.5")[-1]
    started = json.loads((inside.agent.state / "leases" / LEASE / "started.json").read_text())
    assert room(pid) == room(started["init_pid"])
    call.cancel()
    await eventually(lambda: not of(inside, "61.5"))


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("nosuchprogram", 127), ("/work", 126)],
)
async def test_the_exit_code_is_a_shells(inside: Inside, script: str, code: int) -> None:
    said = await inside.run("/bin/sh", "-c", script)
    assert said.code == code


async def test_a_program_that_is_not_there_is_127(inside: Inside) -> None:
    said = await inside.run("no-such-program")
    assert said.code == 127
    assert b"not found" in said.stderr


async def test_streams_are_whole_and_apart(inside: Inside) -> None:
    content = os.urandom(3_000_000)
    said = await inside.run("/bin/sh", "-c", "tee /dev/stderr", stdin=content)
    assert said.code == 0
    digest = hashlib.sha256(content).digest()
    assert hashlib.sha256(said.stdout).digest() == hashlib.sha256(said.stderr).digest() == digest


async def test_the_last_words_are_not_lost(inside: Inside) -> None:
    for tty in (False, True):
        said = await inside.run("/bin/sh", "-c", "seq 1 20000; echo last", stdin=None, tty=tty)
        assert said.code == 0
        assert said.stdout.split()[-2:] == [b"20000", b"last"]
        assert len(said.stdout.split()) == 20_001


async def test_a_slow_reader_holds_the_program_up(inside: Inside) -> None:
    call = await inside.start("/bin/sh", "-c", "yes 0123456789abcdef; # 71.5")
    rss = resident(inside)
    writer = (await eventually(lambda: of(inside, "yes\x000123456789abcdef")))[-1]
    await eventually(lambda: held_up(writer), what="nobody reads, so it waits")
    assert resident(inside) - rss < 16 << 20
    assert (await call.read()).output.stdout.startswith(b"0123456789abcdef\n")
    call.cancel()
    await eventually(lambda: not of(inside, "71.5"))


def room(pid: int) -> list[str]:
    """The cgroup and the namespaces of a process."""
    own = Path(f"/proc/{pid}")
    kinds = ("pid", "net", "mnt", "user", "ipc", "uts", "cgroup")
    return [(own / "cgroup").read_text(), *(str((own / "ns" / kind).readlink()) for kind in kinds)]


def held_up(pid: int) -> bool:
    """Whether a process waits at a full pipe."""
    return "pipe_write" in Path(f"/proc/{pid}/wchan").read_text()


def resident(inside: Inside) -> int:
    rows = (inside.agent.proc / "status").read_text().splitlines()
    return next(int(row.split()[1]) << 10 for row in rows if row.startswith("VmRSS"))


async def test_a_terminal_has_a_size_and_hears_keys(inside: Inside) -> None:
    call = await inside.start("/bin/sh", "-i", tty=True, size=(33, 101), env={"PS1": "> "})
    await send(call, stdin=b"stty size; tty\n")
    said = await read(call, b"/dev/pts/0\r\n")
    assert b"33 101" in said.stdout
    await send(call, size=(40, 99))
    await send(call, stdin=b"stty size\n")
    assert b"40 99" in (await read(call, b"40 99")).stdout
    await send(call, stdin=b"sleep 81.5\n")
    await eventually(lambda: of(inside, "81.5"))
    await send(call, stdin=b"\x03")  # Ctrl-C
    await eventually(lambda: not of(inside, "81.5"))
    await send(call, stdin=b"exit 5\n")
    assert (await read(call)).code == 5


async def test_a_signal_reaches_the_program(inside: Inside) -> None:
    script = "trap 'echo usr; exit 9' USR1; echo up; while :; do sleep 0.05; done"
    call = await inside.start("/bin/sh", "-c", script)
    await read(call, b"up\n")  # from here on it is not killed by it
    await send(call, signal=10)
    said = await read(call)
    assert (said.stdout, said.code) == (b"usr\n", 9)


@pytest.mark.parametrize("tty", [False, True])
async def test_who_goes_away_takes_the_program_along(inside: Inside, tty: bool) -> None:
    script = "trap '' HUP; sleep 91.5 & sleep 91.5"
    call = await inside.start("/bin/sh", "-c", script, tty=tty)
    await eventually(lambda: len(of(inside, "91.5")) >= 2)
    call.cancel()
    await eventually(lambda: not of(inside, "91.5"), 10.0)


async def test_the_core_dies_and_its_sessions_with_it(inside: Inside) -> None:
    call = await inside.start("sleep", "92.5")
    await eventually(lambda: of(inside, "92.5"))
    inside.agent.kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await eventually(lambda: not of(inside, "92.5"), 10.0)
    await inside.agent.start()  # and the task has not noticed
    assert (await inside.run("echo", "again")).stdout == b"again\n"


async def test_a_session_ends_with_its_task(inside: Inside) -> None:
    own = "ls-2"
    inside.centre.want(own, ["sleep 600"])
    await eventually(lambda: inside.centre.running(own), 20)
    call = await inside.start("/bin/sh", "-c", "trap '' HUP TERM; sleep 93.5", lease=own)
    await eventually(lambda: of(inside, "93.5"))
    inside.centre.end(own, notice_ms=0)
    said = await read(call)
    assert said.code == 137
    await eventually(lambda: inside.centre.gone(own), 20)
    assert await refused(inside, own) == "TASK_NOT_RUNNING"


@pytest.mark.parametrize("lease", ["ls-none", "../ls-1", "."])
async def test_no_other_lease_can_be_named(inside: Inside, lease: str) -> None:
    assert await refused(inside, lease) == "TASK_NOT_RUNNING"


async def refused(inside: Inside, lease: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inside.start("true", lease=lease)
    return fault_from_error(caught.value).reason


async def test_sessions_of_a_lease_are_limited(inside: Inside) -> None:
    calls = [await inside.start("sleep", "94.5") for _ in range(32)]
    assert await refused(inside, LEASE) == "TOO_MANY_SESSIONS"
    for call in calls:
        call.cancel()
    await eventually(lambda: not of(inside, "94.5"), 20)
