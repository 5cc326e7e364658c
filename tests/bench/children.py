"""Processes of a bench: each does one thing, told by lines of JSON, and ends with its parent."""

import asyncio
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_CPUCLOCK_SCHED = 2  # Source: Linux, posix-timers: clock of process p = (~p << 3) | 2


class ChildError(Exception):
    """A process of the bench ended, or does not answer."""


def cpu_s(pid):
    """CPU time that all threads of a process have used so far, in seconds."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


class Child:
    """A module run as a process; ``ask`` sends one line and waits for one line."""

    def __init__(self, module, *arguments, env=None):
        self.name = " ".join([module.rpartition(".")[2], *arguments[:1]])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            text=True,
        )
        self._ready = None

    @property
    def ready(self):
        """What it said first: it has started. Asked late, several start at once."""
        if self._ready is None:
            self._ready = self._read(30.0)
        return self._ready

    @property
    def pid(self):
        return self._process.pid

    def cpu_s(self):
        return cpu_s(self.pid)

    def tell(self, **command):
        """Send a command; ``answer`` waits for what comes back."""
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildError(f"{self.name} has ended") from error

    def answer(self, timeout_s=60.0):
        return self._read(timeout_s)

    def ask(self, timeout_s=60.0, **command):
        self.tell(**command)
        return self.answer(timeout_s)

    def stop(self):
        """End it: its input closes, then, if it stays, it is killed."""
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _read(self, timeout_s):
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            what = "ended" if readable else f"did not answer in {timeout_s:.0f} s"
            raise ChildError(f"{self.name} {what}; its own words are above, if it had any")
        return json.loads(line)


def say(**answer):
    """From a child: one line to the parent."""
    print(json.dumps(answer), flush=True)


async def commands():
    """In a child: the parent's commands, until it goes away."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        pipe.close()


async def until_told():
    """In a child: serve until the parent goes away."""
    async for _ in commands():
        pass
