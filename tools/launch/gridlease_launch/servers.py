"""The broker and the database of one platform: our own, or somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

import asyncpg
from gridlease_kernel.faults import Fault, Unreachable
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_store.connect import connect
from gridlease_store.embedded import EmbeddedPostgres

from .folder import StateFolder
from .options import Options
from .parts import SERVICES, Addresses

_DATABASE = "gridlease"
_ANSWER_S = 5.0  # for a server of somebody else's, which is up or is not


class Servers:
    """Starts, keeps and stops what the services stand on."""

    def __init__(self, options: Options, folder: StateFolder) -> None:
        self._options = options
        self.postgres = None if options.postgres_dsn else EmbeddedPostgres(folder.root / "postgres")
        self.nats = None if options.nats_url else EmbeddedNats(folder.root / "nats")

    def start_postgres(self) -> None:
        """Have the database answering, with our own database in it."""
        if self.postgres is not None:
            self.postgres.start()
            asyncio.run(_ensure_database(self.postgres.dsn()))
        else:
            asyncio.run(_check_database(self._options.postgres_dsn or ""))

    def start_nats(self) -> None:
        """Have the broker answering."""
        if self.nats is not None:
            self.nats.start()
        else:
            _check_broker(self._options.nats_url or "")

    def addresses(self) -> Addresses:
        """How the services reach both."""
        owner = self._options.postgres_dsn
        if owner is None:
            assert self.postgres is not None
            owner = self.postgres.dsn(_DATABASE)
        creds = {}
        if self.nats is not None:
            creds = {name: self.nats.role_creds(name) for name in SERVICES}
        elif self._options.nats_creds is not None:
            creds = dict.fromkeys(SERVICES, self._options.nats_creds)
        return Addresses(
            nats_url=self.nats.url if self.nats else self._options.nats_url or "",
            nats_creds=creds,
            postgres_dsn=dict.fromkeys(SERVICES, owner),
            postgres_owner_dsn=owner,
            nats_keys=self.nats.folder / "keys" if self.nats else None,
        )

    def tend(self) -> list[str]:
        """Start again what died; the names of what was started or could not be."""
        said = []
        if self.postgres is not None and self.postgres.pid is None:
            said.append(_again("postgres", self.start_postgres))
        if self.nats is not None and self.nats.pid is None:
            said.append(_again("nats", self._restart_nats))
        if self.nats is not None and self.nats.refresh():
            said.append("nats: revoked credentials are out of force")
        return said

    def stop(self) -> None:
        """Stop our own servers; others' are left alone."""
        if self.nats is not None:
            self.nats.stop()
        if self.postgres is not None:
            self.postgres.stop()

    def _restart_nats(self) -> None:
        assert self.nats is not None
        self.nats.stop()
        self.nats.start()


def _again(name: str, start: object) -> str:
    assert callable(start)
    try:
        start()
    except Fault as fault:
        return f"{name} died and does not start: {fault}"
    return f"{name} died and was started again"


async def _check_database(dsn: str) -> None:
    """Say at once that nothing answers there, instead of letting three services wait for it."""
    connection = await connect(dsn, wait_s=_ANSWER_S)
    await connection.close()


def _check_broker(url: str) -> None:
    """Raises Unreachable where nothing listens at any of the broker's addresses."""
    for one in url.split(","):
        place = urlsplit(one.strip())
        with (
            contextlib.suppress(OSError),
            socket.create_connection((place.hostname or "", place.port or 4222), _ANSWER_S),
        ):
            return
    raise Unreachable(
        f"No NATS server answers at {url}.",
        reason="NATS_UNREACHABLE",
        field="--nats",
        remedy="Check the address, and that the server runs.",
    )


async def _ensure_database(dsn: str) -> None:
    connection = await connect(dsn)
    try:
        known = await connection.fetchval(
            "SELECT count(*) FROM pg_database WHERE datname = $1", _DATABASE
        )
        if not known:
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await connection.execute(f"CREATE DATABASE {_DATABASE}")
    finally:
        await connection.close()
