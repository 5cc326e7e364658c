"""Starts the executor and the core, and keeps both alive: the process that the operator sees.

It is root and does nothing but this. Either child's death leaves the other, and every task, as it
was; the dead one is started again. Its own death ends both at once; tasks go on. Keepers whose
executor died become its children, so that they are reaped.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gridlease_agent.executor import account, cover

_LOG = logging.getLogger(__name__)
RECORD = "agent.json"
EXPECTED_FAILURE = 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_FIRST_WAIT_S, _LAST_WAIT_S, _LONG_LIFE_S = 0.05, 5.0, 10.0
_STOP_S = 6.0
_libc = ctypes.CDLL(None, use_errno=True)
_CANNOT_EXEC = 126


class Child:
    """One of the two, over its lives."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self._body = body
        self.pid = 0
        self.born_at = 0.0
        self.due_at = 0.0
        self._wait_s = _FIRST_WAIT_S

    def start(self) -> None:
        """Fork it. Nothing of this process's signals or wake-up is left in it."""
        self.born_at = time.monotonic()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            die_with(parent)
            self._body()
        except BaseException:  # noqa: BLE001 - a child never returns into its parent's code
            _LOG.exception("the %s could not start", self.name)
        finally:
            os._exit(1)

    def died(self, now: float) -> None:
        """Note it, and when to start it again."""
        lived_s = now - self.born_at
        self._wait_s = min(_LAST_WAIT_S, self._wait_s * 2)
        if lived_s > _LONG_LIFE_S:
            self._wait_s = _FIRST_WAIT_S
        self.pid, self.due_at = 0, now + self._wait_s


def die_with(parent: int) -> None:
    """Be killed when the parent dies. Forgotten when the user changes: call it after that."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Parent:
    """Both children, until SIGTERM or SIGINT."""

    def __init__(self, state: Path, serve: Callable[[], None], core: Callable[[int], None]) -> None:
        """``serve``: the executor's life. ``core``: becomes the core; given a pipe to be ready on.

        Neither returns.
        """
        self._state = state
        self._executor = Child("executor", serve)
        self._core = Child("core", self._become_core)
        self._become = core
        self._ready_read, self._ready_write = -1, -1
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._ready_file: Path | None = None

    def run(self, ready_file: Path | None) -> int:
        """The exit code: the core's, where it ended by itself with 0 or an expected failure."""
        self._ready_file = ready_file
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        try:
            self._executor.start()
            return self._tend()
        finally:
            self._ready(yes=False)
            for child in (self._core, self._executor):
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
            (self._state / RECORD).unlink(missing_ok=True)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _tend(self) -> int:
        until = 0.0
        while True:
            now = time.monotonic()
            for pid, status in _dead():
                code = self._note(pid, status, now)
                if code is not None:
                    return code
            if self._stopping and not until:
                until = now + _STOP_S
                if not self._core.pid:
                    return 0
                os.kill(self._core.pid, signal.SIGTERM)
            if until and now > until:
                return 1
            wait_s = [until - now] if until else self._start_what_is_due(now)
            self._wait(min(wait_s, default=None))

    def _note(self, pid: int, status: int, now: float) -> int | None:
        """A child's end; the exit code where it is the end of all."""
        code = os.waitstatus_to_exitcode(status)
        if pid == self._core.pid:
            self._core.died(now)
            self._ready(yes=False)
            if code in (0, EXPECTED_FAILURE) or self._stopping:
                return max(code, 0)
            _LOG.error("the core ended; it is started again", extra={"code": code})
        elif pid == self._executor.pid:
            self._executor.died(now)
            _LOG.error("the executor ended; it is started again", extra={"code": code})
        return None

    def _start_what_is_due(self, now: float) -> list[float]:
        """How long until the next one is due, for each that waits."""
        waits, born = [], False
        for child in (self._executor, self._core):
            if child.pid:
                continue
            if child.due_at > now:
                waits.append(child.due_at - now)
                continue
            if child is self._core:
                self._new_pipe()
            child.start()
            born = True
        if born:
            self._record()
        return waits

    def _new_pipe(self) -> None:
        self._drop_pipe()
        self._ready_read, self._ready_write = os.pipe2(os.O_CLOEXEC)

    def _drop_pipe(self) -> None:
        for number in (self._ready_read, self._ready_write):
            if number >= 0:
                os.close(number)
        self._ready_read = self._ready_write = -1

    def _become_core(self) -> None:
        os.set_inheritable(self._ready_write, True)
        self._become(self._ready_write)

    def _wait(self, wait_s: float | None) -> None:
        """Until a signal, the core's word, or the time."""
        sources = [self._wake_read, *([self._ready_read] if self._ready_read >= 0 else [])]
        found, _, _ = select.select(sources, [], [], None if wait_s is None else max(0.0, wait_s))
        if self._wake_read in found:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 512)
        if self._ready_read in found:
            if os.read(self._ready_read, 16):
                self._ready(yes=True)
            self._drop_pipe()

    def _ready(self, *, yes: bool) -> None:
        """Say so in the ready file, with our pid: of the three it is the one that lasts."""
        path = self._ready_file
        if path is None:
            return
        if not yes:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(f"{os.getpid()}\n", encoding="ascii")
        part.replace(path)

    def _record(self) -> None:
        """Who is who, for operators and tests."""
        pids = {"parent": os.getpid(), "executor": self._executor.pid, "core": self._core.pid}
        part = self._state / f"{RECORD}.new"
        part.unlink(missing_ok=True)
        try:
            with part.open("x", encoding="ascii") as file:  # the core may make links here
                file.write(json.dumps(pids) + "\n")
            part.replace(self._state / RECORD)
        except OSError as trouble:
            _LOG.error("%s cannot be written: %s", self._state / RECORD, trouble)


def _dead() -> list[tuple[int, int]]:
    """Every child that has ended, keepers included."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            found.append((pid, status))
    return found


def exec_core(
    needed: Sequence[Path], who: tuple[int, int], argv: Sequence[str], env: dict[str, str]
) -> None:
    """Become the core: its view of the files, its user, its program. Never returns."""
    parent = os.getppid()
    _take_place(needed, who)
    die_with(parent)
    os.chdir("/")
    words = [sys.executable, "-m", "gridlease_agent", *argv]
    os.execve(sys.executable, words, env)  # noqa: S606 - a list, and no shell


def _take_place(needed: Sequence[Path], who: tuple[int, int]) -> None:
    cover.unshare()
    cover.cover(needed, *who)
    account.become(*who)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def trial(needed: Sequence[Path], who: tuple[int, int], state: Path) -> str:
    """Try in a child whether the core could live as that user: "" or what is in its way."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        trouble = ""
        try:
            _take_place(needed, who)
            with Path(sys.executable).open("rb"), Path(__file__).open("rb"):
                pass
            draft = state / f".trial.{os.getpid()}"
            draft.touch()
            draft.unlink()
        except BaseException as found:  # noqa: BLE001 - whatever it is, it is told
            trouble = f"{type(found).__name__}: {found}"
        os.write(write, trouble.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        words = told.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return words
