"""Sessions through the whole platform, as people use them: the command, the door, a real node."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gridlease_kernel.faults import Missing
from gridlease_sdk import Client
from gridlease_testkit.waiting import eventually

from tests.e2e.world import World, draft

SERVE = "cd /work && echo hello > index.html && exec python3 -m http.server -b 127.0.0.1 8888"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gridlease_cli", *words]


def environ(world: World) -> dict[str, str]:
    return {**os.environ, "GRIDLEASE_CLIENT_FILE": str(world.state / "client.json")}


def gridlease(
    world: World, *words: str, stdin: bytes = b"", timeout_s: float = 40
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*words), env=environ(world), input=stdin, capture_output=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def environment(world: World, *commands: str, **values: object) -> AsyncIterator[str]:
    """A dev-environment that runs, by its job's name."""
    async with world.tenant() as client:
        spec = draft(*commands, **{"type": "dev-environment", "name": "desk", **values})
        job = await client.submit(spec)

        async def inside() -> bool:
            with contextlib.suppress(Exception):
                async with client.exec(job.name, ["true"]) as session:
                    await session.end_input()
                    return [it async for it in session.output()] == []
            return False

        await eventually(inside, 40.0, "it can be entered")
        yield job.name
        await client.cancel(job.name)
        await client.wait(job.name)


def drive(world: World, name: str, *keys: tuple[str, str]) -> tuple[str, int]:
    """``gridlease exec -t`` at a terminal: what is seen is answered, to its end."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command("exec", name, "--", "/bin/sh", "-i"), environ(world))
    seen, answers, until = "", list(keys), time.monotonic() + 40
    while time.monotonic() < until:
        if answers and re.search(answers[0][0], seen):
            os.write(fd, answers.pop(0)[1].encode())
        if select.select([fd], [], [], 0.2)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            seen += data.decode("utf-8", "replace")
    else:
        os.kill(pid, signal.SIGKILL)
    return seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def test_sessions_as_people_use_them(world: World, tmp_path: Path) -> None:
    async with environment(world, SERVE) as name:
        await asyncio.to_thread(streams, world, name)
        await asyncio.to_thread(terminal, world, name)
        await asyncio.to_thread(ports, world, name)
        await asyncio.to_thread(killed, world, name)
        async with world.operator() as operator:
            await operator.create_tenant("other-tenant")
            key = await operator.create_api_key(project="projects/other-tenant")
        async with Client.connect(f"127.0.0.1:{world.port}", key.secret) as other:
            await foreign(other, name)


def streams(world: World, name: str) -> None:
    content = os.urandom(3_000_000)
    script = ("/bin/sh", "-c", "tee /dev/stderr; exit 7")
    ran = gridlease(world, "exec", name, "--", *script, stdin=content)
    assert ran.returncode == 7, ran.stderr[-500:]
    digest = hashlib.sha256(content).digest()
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(ran.stderr).digest() == digest
    ran = gridlease(world, "exec", name, "--", "no-such-program")
    assert ran.returncode == 127


def terminal(world: World, name: str) -> None:
    seen, code = drive(
        world,
        name,
        (r"\$ ", "stty size; tty\n"),
        (r"/dev/pts/\d+\r\n", "sleep 600\n"),
        (r"sleep 600\r\n", "\x03"),
        (r"\^C", "exit 9\n"),
    )
    assert code == 9, seen
    assert "/dev/pts/" in seen


def ports(world: World, name: str) -> None:
    with subprocess.Popen(
        command("--json", "port-forward", name, "0:8888"),
        env=environ(world),
        stdout=subprocess.PIPE,
    ) as forward:
        assert forward.stdout is not None
        told = b""
        while b"}" not in told:
            piece = os.read(forward.stdout.fileno(), 4096)
            assert piece, told
            told += piece
        url = f"http://127.0.0.1:{json.loads(told)['local']}/index.html"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert answer.read() == b"hello\n"
        forward.send_signal(signal.SIGINT)
        assert forward.wait(10) == 130


def killed(world: World, name: str) -> None:
    """The client is killed; what it ran ends."""

    def counted() -> int:
        ran = gridlease(world, "exec", name, "--", "/bin/sh", "-c", "pgrep -fc '^sleep 7[7]7' || :")
        return int(ran.stdout or b"0")

    client = subprocess.Popen(command("exec", name, "--", "sleep", "777"), env=environ(world))
    until = time.monotonic() + 20
    while not counted():
        assert time.monotonic() < until
    client.kill()
    client.wait()
    while counted():
        assert time.monotonic() < until + 20


async def foreign(other: Client, name: str) -> None:
    """Another tenant hears the same as for a job that never was."""
    told = []
    for job in (name, "projects/other-tenant/jobs/never-was"):
        with pytest.raises(Missing) as exec_:
            async with other.exec(job, ["true"]):
                pass
        with pytest.raises(Missing) as forward:
            async with other.forward(job, 8888):
                pass
        with pytest.raises(Missing) as attach:
            async for _ in other.attach(job):
                pass
        reasons = {it.value.reason for it in (exec_, forward, attach)}
        told.append((reasons, exec_.value.message.replace(job, ""), exec_.value.remedy))
    assert told[0] == told[1]
    assert told[0][0] == {"JOB_NOT_FOUND"}
