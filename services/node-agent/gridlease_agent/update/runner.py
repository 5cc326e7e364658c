"""Starts the current slot's agent, and changes slots: stop, start, trial, and back if it fails.

It is all that lasts over an update, so it is small. Tasks are their keepers' children and notice
nothing. A runner that dies during a trial finds the trial on record, and goes back: what was not
proved is not kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gridlease_agent.update.gate import Gate
from gridlease_agent.update.slots import Slots

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.1
_STOP_S = 15.0
_AGAIN_S = (0.2, 1.0, 5.0)


class Process(Protocol):
    """A started agent."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """``state``: the agent's folder. ``trial_s``: how long a new agent has to prove itself."""

    state: Path
    arguments: tuple[str, ...]
    trial_s: float = 120.0


class Runner:
    """The process that the service manager starts."""

    def __init__(self, slots: Slots, terms: Terms) -> None:
        self._slots = slots
        self._terms = terms
        self._process: Process | None = None
        self._stopping = False
        self._failures = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._after_a_crash()
        while not self._stopping:
            record = self._slots.read()
            if record.wanted and record.wanted != self._slots.current():
                self._change(record.wanted)
            elif self._process is None:
                self._process = self._start(self._slots.current())
            elif self._process.poll() is not None:
                self._ended(self._process.poll())
            time.sleep(_LOOK_S)
        self._end()
        return 0

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _after_a_crash(self) -> None:
        """A trial that nobody saw the end of has failed."""
        record = self._slots.read()
        if record.trial and record.trial == self._slots.current():
            self._back(record.trial, "the host or the runner ended during its trial")
        elif record.trial:
            self._slots.note(trial="")

    def _ended(self, code: int | None) -> None:
        """The agent ended by itself: start it again, after a pause that grows."""
        pause_s = _AGAIN_S[min(self._failures, len(_AGAIN_S) - 1)]
        _LOG.error("the agent ended; it is started again", extra={"code": code, "in_s": pause_s})
        self._failures += 1
        self._process = None
        until = time.monotonic() + pause_s
        while time.monotonic() < until and not self._stopping:
            time.sleep(_LOOK_S)

    # -- changing -------------------------------------------------------------------------------

    def _change(self, slot: str) -> None:
        before = self._slots.current()
        self._end()
        gate = Gate.before(self._terms.state)
        facts = {"from": before, "to": slot, "tasks": len(gate.tasks)}
        _LOG.info("the agent changes slots", extra=facts)
        self._slots.note(trial=slot)
        self._slots.switch(slot)
        self._process = self._start(slot)
        trouble = self._tried(gate) if before else ""
        if self._stopping:
            return  # the trial stays on record
        if trouble:
            self._back(slot, trouble)
            return
        self._failures = 0
        version = self._slots.read().versions.get(slot, "")
        self._slots.note(wanted="", trial="", said=f"{version} runs")
        _LOG.info("the change is done", extra={"slot": slot, "version": version})

    def _tried(self, gate: Gate) -> str:
        """Why the trial failed, "" where it did not."""
        until, lacks = time.monotonic() + self._terms.trial_s, ""
        while time.monotonic() < until and not self._stopping:
            assert self._process is not None
            code = self._process.poll()
            if code is not None:
                return f"it ended with {code}"
            lacks = gate.lacks()
            if not lacks:
                return ""
            time.sleep(_LOOK_S)
        return lacks or "it was not given the time"

    def _back(self, slot: str, trouble: str) -> None:
        """The other slot, which ran before."""
        version = self._slots.read().versions.get(slot, "")
        _LOG.error("the change is taken back: %s", trouble, extra={"version": version})
        self._end()
        self._slots.switch(self._slots.other())
        self._slots.note(wanted="", trial="", said=f"{version} was taken back: {trouble}")
        self._process = self._start(self._slots.current())

    # -- the agent ------------------------------------------------------------------------------

    def _start(self, slot: str) -> Process:
        assert slot, "nothing was ever installed"
        python, more = self._slots.command(slot)
        return subprocess.Popen(
            [python, "-m", "gridlease_agent", *self._terms.arguments],
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
        )

    def _end(self) -> None:
        """Ask the agent to stop, then make it; tasks go on."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)


def arguments_of(words: Sequence[str]) -> tuple[str, ...]:
    """The agent's own command line, after ``--``."""
    return tuple(words[1:] if words[:1] == ["--"] else words)
