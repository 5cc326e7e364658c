"""One real PostgreSQL a session, one database a test: copied, not made."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import asyncpg
from gridlease_kernel.faults import Precondition
from gridlease_store.binaries import find_bin_dir, major_of
from gridlease_store.embedded import EmbeddedPostgres

# Nothing here outlives the machine, so nothing is flushed; a killed process still loses nothing.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
_COPY_S = 60


class TestServer:
    """A running server, and databases made on it by copying."""

    __test__ = False  # not a test, whatever its name

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        self._templates: dict[str, str] = {}

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """The address of a database of this server."""
        return self.server.dsn(database, user)

    async def create(self, template: str = "template0") -> str:
        """The name of a fresh database, a copy of ``template``."""
        name = f"t{os.getpid()}_{next(self._numbers)}"
        await self._admin(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    async def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        await self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def template(self, key: str, build: Callable[[str], Awaitable[object]]) -> str:
        """A database built once a session by ``build(dsn)``, to be copied by ``create``."""
        if key not in self._templates:
            name = await self.create()
            await build(self.dsn(name))
            self._templates[key] = name
        return self._templates[key]

    async def _admin(self, sql: str) -> None:
        connection = await asyncpg.connect(self.dsn(), timeout=10)
        try:
            await connection.execute(sql, timeout=30)
        finally:
            await connection.close(timeout=5)


def start_server(
    folder: Path, bin_dir: Path | None = None, settings: Mapping[str, str] = SETTINGS
) -> EmbeddedPostgres:
    """A started server on ``folder``, from a prepared cluster where one can be kept."""
    bin_dir = bin_dir or find_bin_dir()
    server = EmbeddedPostgres(folder, bin_dir, settings=settings, sync=False, die_with_parent=True)
    prepared = _prepared(bin_dir)
    if prepared is not None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["cp", "-a", "--reflink=auto", str(prepared), str(server.data)],
            check=True, timeout=_COPY_S, capture_output=True,
        )  # fmt: skip
    server.start()
    return server


def _prepared(bin_dir: Path) -> Path | None:
    """A cluster that was initialised once for this user and these programs; None without a home."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    stamp = int((bin_dir / "postgres").stat().st_mtime)
    place = home / "gridlease-tests" / f"postgres-{major_of(bin_dir)}-{stamp}"
    if (place / "data" / "PG_VERSION").exists():
        return place / "data"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=place.parent))
    except OSError:
        return None
    part.chmod(0o711)
    try:
        maker = EmbeddedPostgres(part, bin_dir, settings=SETTINGS, sync=False)
        maker.start()
        maker.stop()
        with contextlib.suppress(OSError):  # another session was first
            part.rename(place)
    except Precondition:  # the account that the server must drop to cannot enter the home
        return None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place / "data"
