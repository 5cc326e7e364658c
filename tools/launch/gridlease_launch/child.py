"""One process of the platform: started, watched, started again, stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .backoff import Backoff

_LOG_KEEP_BYTES: Final = 16 << 20
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Part:
    """What a process is made of."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready_file: Path
    log: Path


def _die_with_parent() -> None:
    """A supervisor that was killed takes its services along; tasks' shims stay."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A part's process over its lives."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._retry_at = 0.0
        self._backoff = Backoff()

    @property
    def ready(self) -> bool:
        """It serves: it wrote its own pid to its ready file."""
        try:
            said = self.part.ready_file.read_text(encoding="utf-8").strip()
        except OSError:
            return False
        return self._process is not None and said == str(self._process.pid)

    def start(self) -> None:
        """Start it now."""
        self.part.ready_file.unlink(missing_ok=True)
        if self.part.log.exists() and self.part.log.stat().st_size > _LOG_KEEP_BYTES:
            self.part.log.replace(self.part.log.with_suffix(".log.old"))
        with self.part.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.part.argv),
                env={**os.environ, **self.part.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # One call into libc and nothing else: safe between fork and exec.
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )
        self._started_at = time.monotonic()

    def tend(self) -> int | None:
        """Start it again where it died and its wait is over; answers a death's exit code once."""
        if self._process is None:
            if time.monotonic() >= self._retry_at:
                self.start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        now = time.monotonic()
        self._retry_at = now + self._backoff.wait_ms / 1_000
        self._backoff = self._backoff.after_death(round((now - self._started_at) * 1_000))
        self._process = None
        return code

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def await_stop(self, timeout_s: float) -> None:
        """Wait for its end; after ``timeout_s`` seconds it is killed."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)
        self._process = None

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, for a message."""
        try:
            text = self.part.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
