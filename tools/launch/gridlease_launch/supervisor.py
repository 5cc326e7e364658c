"""Starts a platform in order, keeps it alive, stops it in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gridlease_kernel.faults import Precondition, Unreachable
from gridlease_sdk import Client

from . import parts
from .child import Child, Part
from .folder import StateFolder, Supervisor
from .options import Options
from .port import check_free
from .servers import Servers

Say = Callable[[str], None]
_TICK_S: Final = 0.1
_READY_S: Final = 90.0
_JOIN_S: Final = 60.0
_STOP_S: Final = 8.0
_ROOT: Final = Path(__file__).resolve().parents[3]


class Platform:
    """Everything of one state folder, from the first start to the clean stop."""

    def __init__(self, options: Options, say: Say, when_ready: Sequence[str] = ()) -> None:
        self._options = options
        self._say = say
        self._when_ready = when_ready
        self._folder = StateFolder(options.state)
        self._children: list[Child] = []
        self._servers: Servers | None = None
        self._stopping = False

    def run(self) -> int:
        """Start all, tend it until SIGTERM or SIGINT, stop all.

        Raises:
            Fault: what kept it from starting, with the remedy.
        """
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._folder.make()
        with self._folder.held():
            try:
                self._record(ready=False)
                self._start()
                for line in () if self._stopping else self._when_ready:
                    self._say(line)
                self._record(ready=not self._stopping)
                self._tend()
            finally:
                self._stop()
                self._folder.forget_supervisor()
        return 0

    # -- starting --------------------------------------------------------------------------

    def _start(self) -> None:
        check_free(self._options.port)
        runtime = self._prepare_runtime()
        self._servers = Servers(self._options, self._folder)
        self._step("postgres", self._servers.start_postgres)
        self._step("nats", self._servers.start_nats)
        addresses = self._servers.addresses()
        for name in parts.SERVICES:
            self._add(parts.service(name, self._folder, self._options, addresses))
        for child in self._children:
            self._await_ready(child, _READY_S)
        self._await_runtime(runtime)
        self._start_agents()

    def _start_agents(self) -> None:
        if self._stopping:
            return
        if self._options.agent:
            token = self._token_for_this_host()
            child = self._add(parts.agent(self._folder, self._options, token))
            self._await_ready(child, _JOIN_S)
        if self._options.fleet:
            tokens = self._tokens_for_fleet()
            child = self._add(parts.fleet(self._folder, self._options, tokens))
            self._await_ready(child, _JOIN_S + self._options.fleet)

    def _step(self, name: str, start: Callable[[], None]) -> None:
        began = time.monotonic()
        start()
        self._say(f"{name:<10} ready   {time.monotonic() - began:5.1f} s")

    def _add(self, part: Part) -> Child:
        child = Child(part)
        self._children.append(child)
        child.start()
        return child

    def _await_ready(self, child: Child, timeout_s: float) -> None:
        began = time.monotonic()
        deaths = 0
        while not child.ready and not self._stopping:
            code = child.tend()
            if code is not None:
                deaths += 1
                if deaths >= 3 or code == 2:
                    raise Precondition(
                        f"{child.part.name} does not start: {_sentence(child.last_words())}",
                        reason="PART_DOES_NOT_START",
                        remedy=f"Its log is {child.part.log}.",
                    )
            if time.monotonic() - began > timeout_s:
                raise Unreachable(
                    f"{child.part.name} was not ready within {timeout_s:.0f} s.",
                    reason="PART_SLOW",
                    remedy=f"Its log is {child.part.log}.",
                )
            time.sleep(_TICK_S / 2)
        self._say(f"{child.part.name:<10} ready   {time.monotonic() - began:5.1f} s")

    def _prepare_runtime(self) -> subprocess.Popen[bytes] | None:
        """Prepare the numpy environment beside the start of the servers."""
        lock = _ROOT / "runtimes" / "numpy.txt"
        if not self._options.agent or not lock.exists():
            return None
        command = [sys.executable, "-m", "gridlease_agent.environments"]
        command += ["--environments", str(self._folder.environments), "--name", "numpy", str(lock)]
        with self._folder.log("environments").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _await_runtime(self, runtime: subprocess.Popen[bytes] | None) -> None:
        if runtime is None:
            return
        began = time.monotonic()
        try:
            code = runtime.wait(180.0)
        except subprocess.TimeoutExpired:
            runtime.kill()
            code = -1
        if code != 0:
            self._say(
                "runtime    MISSING: the numpy environment could not be prepared; jobs that name "
                f"it will wait. See {self._folder.log('environments')}."
            )
        else:
            self._say(f"runtime    ready   {time.monotonic() - began:5.1f} s  (numpy)")

    # -- joining ---------------------------------------------------------------------------

    def _token_for_this_host(self) -> str | None:
        if (self._folder.root / "node" / "credential.json").exists():
            return None
        return asyncio.run(self._tokens([_node_id()]))[0]

    def _tokens_for_fleet(self) -> Path:
        """One token for each emulated node; those that joined already need none."""
        path = self._folder.root / "fleet" / "tokens"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        have = path.read_text(encoding="utf-8").split() if path.exists() else []
        names = [f"emulated-{number:03d}" for number in range(len(have), self._options.fleet)]
        have += asyncio.run(self._tokens(names))
        path.touch(mode=0o600)
        path.write_text("\n".join(have) + "\n", encoding="utf-8")
        return path

    async def _tokens(self, node_ids: Sequence[str]) -> list[str]:
        facts = json.loads(self._folder.client_file.read_text(encoding="utf-8"))
        async with Client.connect(self._options.endpoint, facts["operator_key"]) as client:
            return [(await client.create_node_token(node_id=node_id)).token for node_id in node_ids]

    # -- running and stopping --------------------------------------------------------------

    def _tend(self) -> None:
        assert self._servers is not None
        while not self._stopping:
            for child in self._children:
                code = child.tend()
                if code is not None:
                    self._say(f"{child.part.name} ended with {code}; starting it again")
            for word in self._servers.tend():
                self._say(word)
            time.sleep(_TICK_S)

    def _stop(self) -> None:
        for child in reversed(self._children):
            child.ask_to_stop()
        for child in reversed(self._children):
            child.await_stop(_STOP_S)
        if self._servers is not None:
            self._servers.stop()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _record(self, *, ready: bool) -> None:
        who = Supervisor(os.getpid(), self._options.endpoint, ready)
        self._folder.write_supervisor(who)


def _node_id() -> str:
    name = os.uname().nodename.split(".")[0].lower()
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in name).strip("-")
    return safe[:40].strip("-") or "this-host"


def _sentence(words: str) -> str:
    """The last line that says something, out of JSON where it is JSON."""
    lines = [line for line in words.splitlines() if line.strip()]
    if not lines:
        return "it said nothing."
    try:
        return str(json.loads(lines[-1]).get("message", lines[-1]))
    except (ValueError, AttributeError):
        return lines[-1]
