"""A PostgreSQL server of our own in one folder, reached by a unix socket only.

    folder/data/         the cluster          folder/server.log    what the server says
    folder/run/          the socket (0700)    folder/server.json   which process is ours, and where

The server outlives its launcher: another launcher on the same folder adopts it, and starts it
again, through crash recovery, after its death. Sync throughout: call it from a supervisor or in a
thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gridlease_kernel.faults import Fault, Precondition, Unreachable

from . import binaries, runas
from .processes import Process, process_at, servers_in, works_in

_LOG = logging.getLogger(__name__)
_PORT: Final = 5432  # names the socket file; nothing listens on TCP
_SOCKET_PATH_BYTES: Final = 100  # sun_path holds 107 and a zero
_RECOVERY_S: Final = 60.0
_INITDB_S: Final = 120.0
_POLL_S: Final = 0.01
_ANSWER_S: Final = 1.0
# "Do you speak TLS?": any server answers with one byte. Source: PostgreSQL's protocol, SSLRequest.
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
_LOG_KEEP_BYTES: Final = 8 << 20
# A backend that outlived its postmaster holds the shared memory until its statement ends.
_RETRY: Final = ("pre-existing shared memory block", "lock file", "starting up")
_SETTINGS: Final = {
    "max_connections": "200",
    "max_wal_size": "512MB",  # bounds the redo after a crash to a few seconds
    "timezone": "UTC",
    "log_timezone": "UTC",
    "client_connection_check_interval": "5s",  # a vanished client's statement ends
}


class EmbeddedPostgres:
    """One server on one folder.

    Args:
        folder: The state folder; created if absent.
        bin_dir: PostgreSQL's programs; None takes the wheel's, else the distribution's newest.
        settings: Server settings over the defaults.
        sync: False skips the flush of a new cluster to disk (for tests).
        die_with_parent: Have the kernel end it when the starting thread ends (for tests).
    """

    def __init__(
        self,
        folder: Path | str,
        bin_dir: Path | str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        sync: bool = True,
        die_with_parent: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.data = self.folder / "data"
        self.log_path = self.folder / "server.log"
        self._record = self.folder / "server.json"
        self._bin_dir = None if bin_dir is None else Path(bin_dir)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._sync = sync
        # After the change of account: that would clear the signal.
        self._tie = ("setpriv", "--pdeathsig", "QUIT", "--") if die_with_parent else ()
        self._runas = runas.DIRECT

    @property
    def pid(self) -> int | None:
        """The postmaster's pid; None while none runs."""
        process = self._postmaster()
        return process.pid if process else None

    @property
    def socket_dir(self) -> Path:
        """The private folder of the socket; the same for every start on this folder."""
        recorded = self._recorded().get("socket_dir")
        return Path(str(recorded)) if recorded else self.folder / "run"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """The address for asyncpg; it stays the same over restarts."""
        where = quote(str(self.socket_dir), safe="/")
        return f"postgresql://{quote(user)}@/{quote(database)}?host={where}&port={_PORT}"

    def start(self, timeout_s: float = _RECOVERY_S) -> None:
        """Have the server running and answering: adopt a live one, or start it, recovering.

        Raises:
            Precondition: the binaries, the account, the folder or the disk do not allow it.
            Unreachable: it was not ready within ``timeout_s`` seconds.
        """
        self._make_folder()
        with self._lock(timeout_s):
            deadline = time.monotonic() + timeout_s
            while True:
                if self._postmaster() is None:
                    self._launch(deadline)
                try:
                    self._wait_ready(deadline)
                except Unreachable:
                    # The server that was found alive was dying: start another in its place.
                    if time.monotonic() > deadline or self._postmaster() is not None:
                        raise
                else:
                    return

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop the server: politely, then at once, then by force. Idempotent."""
        process = self._postmaster()
        steps = ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
        for number, wait_s in steps:
            if process is None or not process.alive():
                break
            process.signal(number)
            if process.wait_gone(wait_s):
                break
            _LOG.warning("postgres did not stop within %.0f s of %s", wait_s, number.name)
        if self.data.exists():
            self._sweep()
        if self.socket_dir != self.folder / "run":
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def wait_ready(self, timeout_s: float = _RECOVERY_S) -> None:
        """Wait until the running server answers.

        Raises:
            Unreachable: POSTGRES_NOT_READY, or POSTGRES_DIED when it ended meanwhile.
        """
        self._wait_ready(time.monotonic() + timeout_s)

    # -- starting --------------------------------------------------------------------------

    def _launch(self, deadline: float) -> None:
        bin_dir = self._bin_dir or binaries.find_bin_dir()
        major = binaries.major_of(bin_dir)
        self._runas = runas.choose(bin_dir / "postgres", self.folder, self.data)
        if not (self.data / "PG_VERSION").exists():
            self._initdb(bin_dir)
        self._check_major(major)
        socket_dir = self._make_socket_dir()
        pause_s = 0.1
        while True:
            self._sweep()
            offset = self._open_log()
            process = self._spawn(bin_dir, socket_dir)
            if self._came_up(process, deadline):
                return
            said = self._said_since(offset)
            if not any(text in said for text in _RETRY) or time.monotonic() + pause_s > deadline:
                raise _start_fault(said, self.log_path)
            _LOG.warning("postgres cannot start yet; trying again in %.1f s", pause_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)

    def _initdb(self, bin_dir: Path) -> None:
        part = self.folder / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        self._runas.own(part)
        # Checksums on every major: money is worth them, and pg_upgrade wants both sides alike.
        command = [
            *self._runas.prefix, str(bin_dir / "initdb"), "--pgdata", str(part),
            "--encoding=UTF8", "--locale=C", "--username=postgres", "--auth=trust",
            "--data-checksums", *([] if self._sync else ["--no-sync"]),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_INITDB_S,
                check=False, cwd="/", env=_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise _start_fault(f"initdb took more than {_INITDB_S:.0f} s", self.log_path) from error
        if done.returncode != 0:
            shutil.rmtree(part, ignore_errors=True)
            raise _start_fault(done.stderr or done.stdout, self.log_path)
        part.rename(self.data)

    def _check_major(self, major: int) -> None:
        held = (self.data / "PG_VERSION").read_text().strip()
        if held != str(major):
            raise Precondition(
                f"{self.data} was written by PostgreSQL {held}, and the programs are {major}.",
                reason="POSTGRES_MAJOR",
                remedy=f"Start it with PostgreSQL {held}'s bin folder, or move it with pg_upgrade.",
            )

    def _make_socket_dir(self) -> Path:
        """A 0700 folder for the socket: below ours, or a short one where the path is too long."""
        path = self.socket_dir
        too_long = len(os.fsencode(path / f".s.PGSQL.{_PORT}")) > _SOCKET_PATH_BYTES
        if path == self.folder / "run" and too_long:
            path = Path(tempfile.mkdtemp(prefix="gridlease-"))
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if not path.is_dir() or path.is_symlink() or status.st_mode & 0o077:
            # Somebody else made it while the server was down: take another.
            path = Path(tempfile.mkdtemp(prefix="gridlease-"))
        self._runas.own(path)
        self._remember(socket_dir=str(path))
        return path

    def _spawn(self, bin_dir: Path, socket_dir: Path) -> Process:
        """Start the postmaster in a session of its own; it does not end with its launcher."""
        settings = {**self._settings, "unix_socket_directories": str(socket_dir)}
        settings["unix_socket_permissions"] = "0700"
        command = [
            *self._runas.prefix, *self._tie, str(bin_dir / "postgres"), "-D", str(self.data),
            "-h", "", "-p", str(_PORT),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]  # fmt: skip
        program = shutil.which(command[0])
        assert program is not None, command[0]
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            program, command, _environment(), setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_path), log_flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )  # fmt: skip
        process = process_at(pid) or Process(pid, 0)
        self._remember(pid=process.pid, start_ticks=process.start_ticks)
        return process

    def _came_up(self, process: Process, deadline: float) -> bool:
        """True once the server is ready; False when it ended."""
        while process.alive():
            if self._ready(process):
                return True
            if time.monotonic() > deadline:
                raise _not_ready(self.log_path)  # it goes on recovering; the next start adopts it
            time.sleep(_POLL_S)
        return False

    def _wait_ready(self, deadline: float) -> None:
        while True:
            process = self._postmaster()
            if process is None:
                raise Unreachable(
                    "PostgreSQL is not running.",
                    reason="POSTGRES_DIED",
                    remedy=f"Start it again; {self.log_path} says why it ended.",
                    retry_after_ms=500,
                )
            if self._ready(process):
                return
            if time.monotonic() > deadline:
                raise _not_ready(self.log_path)
            time.sleep(_POLL_S)

    def _ready(self, process: Process) -> bool:
        """The postmaster's own word in its pid file (what pg_ctl reads), and an answer from it:
        a server that was just killed leaves the word behind."""
        lines = self._pid_file()
        if len(lines) <= 7 or lines[0] != str(process.pid) or lines[7].strip() != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_ANSWER_S)
            try:
                probe.connect(str(self.socket_dir / f".s.PGSQL.{_PORT}"))
                probe.sendall(_SSL_REQUEST)
                return probe.recv(1) != b""
            except OSError:
                return False

    # -- which process is ours ----------------------------------------------------------------

    def _postmaster(self) -> Process | None:
        """The live postmaster of this folder, whoever started it."""
        recorded = self._recorded()
        known = Process(int(recorded.get("pid", 0)), int(recorded.get("start_ticks", 0)))
        if known.pid and known.alive():
            return known
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].isdigit() else 0
        return process_at(pid) if pid and works_in(pid, self.data) else None

    def _sweep(self) -> None:
        """Clear what a dead postmaster left: orphan backends, and a pid file that names another.

        Backends lead sessions of their own, so no process group holds them together; what does is
        the data folder that each of them stands in.
        """
        if self._postmaster() is not None:
            return
        orphans = servers_in(self.data)
        for orphan in orphans:
            orphan.signal(signal.SIGKILL)
        if orphans:
            _LOG.warning("ended %d backends that had outlived their postmaster", len(orphans))
        for orphan in orphans:
            orphan.wait_gone(5.0)
        # A pid may mean another process by now (pids repeat after a reboot), or a file may have
        # been cut short: PostgreSQL would refuse for ever. Else it clears these files itself.
        for file in (self.data / "postmaster.pid", self.socket_dir / f".s.PGSQL.{_PORT}.lock"):
            lines = _lines(file)
            named = int(lines[0]) if lines and lines[0].isdigit() else None
            if named is None or process_at(named) is not None:
                file.unlink(missing_ok=True)

    def _pid_file(self) -> list[str]:
        return _lines(self.data / "postmaster.pid")

    # -- our own files ---------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError as error:
            raise _start_fault(f"{self.folder}: {error.strerror}", self.log_path) from error

    @contextlib.contextmanager
    def _lock(self, timeout_s: float) -> Iterator[None]:
        """One launcher at a time on a folder."""
        deadline = time.monotonic() + timeout_s
        with (self.folder / "launcher.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise _not_ready(self.log_path) from None
                    time.sleep(_POLL_S)
            yield

    def _recorded(self) -> dict[str, str | int]:
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _remember(self, **facts: str | int) -> None:
        part = self._record.with_suffix(".part")
        part.write_text(json.dumps({**self._recorded(), **facts}))
        part.replace(self._record)

    def _open_log(self) -> int:
        """Where the next start's words begin; a log grown too long starts anew, keeping one."""
        size = self.log_path.stat().st_size if self.log_path.exists() else 0
        if size > _LOG_KEEP_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
            size = 0
        return size

    def _said_since(self, offset: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(offset)
            return log.read(64 << 10).decode(errors="replace")


def _environment() -> dict[str, str]:
    """Nothing of ours but the path: PG* variables would steer the programs."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _start_fault(said: str, log_path: Path) -> Fault:
    """What a failed start's last words mean for the person who reads them."""
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return Precondition(
            f"PostgreSQL cannot start: the disk of {log_path.parent} is full.",
            reason="DISK_FULL",
            remedy="Free some space, or choose another folder with --state.",
        )
    words = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in words if "FATAL" in line or "error" in line.lower()]
    return Precondition(
        f"PostgreSQL cannot start: {' '.join((telling or words)[-2:])[:400] or 'it said nothing'}",
        reason="POSTGRES_START",
        remedy=f"See {log_path}, or pass --postgres DSN to use another server.",
    )


def _not_ready(log_path: Path) -> Unreachable:
    return Unreachable(
        "PostgreSQL is not ready yet.",
        reason="POSTGRES_NOT_READY",
        remedy=f"It may be recovering: wait and start again; {log_path} shows how far it is.",
        retry_after_ms=1_000,
    )
