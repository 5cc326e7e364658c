"""Backup and restore of all rooms: one consistent snapshot in one file, by pg_dump and pg_restore.

    file = tar: manifest.json (what it is, the roles, the books' head), dump (pg_dump's own format)

A restore goes into an empty database alone, in one transaction, and is compared with the head that
the manifest names. It marks billing's books as restored: billing then fences every lease before it
serves (docs/lease-protocol.md, section 11).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tarfile
import tempfile
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from gridlease_kernel.faults import Invalid, Precondition

from . import binaries
from .connect import connect
from .sealed import check_secret, is_sealed, seal, unseal

ROOMS: Final = ("scheduler", "billing", "gateway")
_FORM: Final = "gridlease backup 1"
_PROGRAM_S: Final = 3_600.0
_WAIT_S: Final = 10.0
_MANIFEST_BYTES: Final = 1 << 20
_HEAD: Final = "SELECT encode(billing.books_head(), 'hex')"
_TABLES: Final = """
SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
"""
_ROLES: Final = """
SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY($1) ORDER BY rolname
"""
_MARK: Final = """
INSERT INTO billing.restored (restored_ms)
VALUES (floor(extract(epoch FROM clock_timestamp()) * 1000)::int8)
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. ``head``: of the books' chains; empty where billing was not there."""

    form: str
    made_at: str  # by the database's clock, UTC
    rooms: tuple[str, ...]
    roles: Mapping[str, bool]  # whether each may log in
    head: str
    dump_sha256: str
    dump_bytes: int


async def backup(dsn: str, file: Path, secret: bytes | None = None) -> Manifest:
    """Writes ``file`` (mode 0600, whole or not at all); what it holds.

    Args:
        dsn: The owner's address; row-level security must not bind it.
        file: Where to; an existing one is not touched.
        secret: What to encrypt it under; None = it is not encrypted.

    Raises:
        Precondition: BACKUP_FILE, BACKUP_FAILED, POSTGRES_MISSING or DATABASE_REFUSED.
        Unreachable: the database does not answer.
    """
    _is_new(file)
    if secret is not None:
        check_secret(secret)
    connection = await connect(dsn, wait_s=_WAIT_S, settings={"timezone": "UTC"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rooms, roles, head, made_at, snapshot = await _look(connection)
            with tempfile.TemporaryDirectory(dir=_folder(file), prefix=".backup-") as folder:
                dump = Path(folder) / "dump"
                words = ["--format=custom", f"--snapshot={snapshot}", f"--file={dump}", "--no-sync"]
                words += [f"--schema={room}" for room in rooms]
                await _program("pg_dump", words, dsn, "BACKUP_FAILED")
                digest, size = await asyncio.to_thread(_digest, dump)
                manifest = Manifest(_FORM, made_at, rooms, roles, head, digest, size)
                await asyncio.to_thread(_pack, Path(folder), manifest, dump, file, secret)
    finally:
        connection.terminate()
    return manifest


async def restore(dsn: str, file: Path, secret: bytes | None = None) -> Manifest:
    """Fills an empty database from ``file``; what it holds now.

    Raises:
        Invalid: BACKUP_MALFORMED: it is not a whole backup; BACKUP_ENCRYPTED: no secret was named.
        Precondition: RESTORE_NOT_EMPTY, RESTORE_FAILED (nothing was changed) or RESTORE_DIFFERS.
        Unreachable: the database does not answer.
    """
    connection = await connect(dsn, wait_s=_WAIT_S, settings={"timezone": "UTC"})
    try:
        if await connection.fetchval(_TABLES):
            raise _not_empty()
        with tempfile.TemporaryDirectory(dir=_folder(file), prefix=".restore-") as folder:
            dump = Path(folder) / "dump"
            plain = await asyncio.to_thread(_opened, file, Path(folder), secret)
            manifest = await asyncio.to_thread(_unpack, plain, dump)
            for role, login in manifest.roles.items():
                await _make_role(connection, role, login=login)
            words = [
                "--single-transaction",
                "--exit-on-error",
                "--no-owner",
                "--dbname=",
                str(dump),
            ]
            await _program("pg_restore", words, dsn, "RESTORE_FAILED")
        if "billing" in manifest.rooms:
            await _check(connection, manifest)
            await connection.execute("SELECT set_config('gridlease.tenant', '*', false)")
            await connection.execute(_MARK)
    finally:
        connection.terminate()
    return manifest


def read_manifest(file: Path) -> Manifest:
    """What a backup says that it holds.

    Raises:
        Invalid: BACKUP_MALFORMED.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            member = tar.extractfile("manifest.json")
            assert member is not None
            found = json.loads(member.read(_MANIFEST_BYTES))
        found["rooms"] = tuple(found["rooms"])
        manifest = Manifest(**found)
        assert manifest.form == _FORM
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise _malformed(file) from error
    return manifest


async def _look(
    connection: asyncpg.Connection[Any],
) -> tuple[tuple[str, ...], dict[str, bool], str, str, str]:
    found = await connection.fetch(
        "SELECT nspname FROM pg_namespace WHERE nspname = ANY($1) ORDER BY 1", list(ROOMS)
    )
    rooms = tuple(it["nspname"] for it in found)
    if not rooms:
        raise Precondition(
            "There is no room in this database.",
            reason="BACKUP_FAILED",
            field="postgres",
            remedy="Name the database that the platform uses.",
        )
    roles = await connection.fetch(_ROLES, [f"gl_{room}" for room in rooms])
    head = ""
    if "billing" in rooms:
        await connection.execute("SELECT set_config('gridlease.tenant', '*', true)")
        head = str(await connection.fetchval(_HEAD))
    made_at = str(await connection.fetchval("SELECT now()"))
    snapshot = str(await connection.fetchval("SELECT pg_export_snapshot()"))
    return rooms, {it["rolname"]: it["rolcanlogin"] for it in roles}, head, made_at, snapshot


async def _program(name: str, words: Sequence[str], dsn: str, reason: str) -> None:
    """Runs one of PostgreSQL's programs; the address goes by variables, never on the line."""
    path = binaries.find_bin_dir() / name
    if not path.is_file():
        raise Precondition(
            f"{path} is not there.",
            reason="POSTGRES_MISSING",
            remedy="Install the distribution's postgresql-client, or gridlease[embedded].",
        )
    env = {**os.environ, **_variables(dsn), "PGCONNECT_TIMEOUT": "10"}
    process = await asyncio.create_subprocess_exec(
        str(path), f"--dbname={env['PGDATABASE']}", *words, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=env,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_PROGRAM_S):
            _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        text = said.decode(errors="replace").strip()[-400:]
        raise Precondition(
            f"{name} failed: {text}",
            reason=reason,
            remedy="Nothing was changed. Connect as the owner of the database, or a superuser.",
        )


def _variables(dsn: str) -> dict[str, str]:
    """An address as libpq's own variables. Source: PostgreSQL's manual, libpq, environment."""
    parts = urllib.parse.urlsplit(dsn)
    query = dict(urllib.parse.parse_qsl(parts.query))
    found = {
        "PGHOST": query.get("host") or parts.hostname,
        "PGPORT": query.get("port") or (str(parts.port) if parts.port else None),
        "PGUSER": query.get("user") or urllib.parse.unquote(parts.username or ""),
        "PGPASSWORD": query.get("password") or urllib.parse.unquote(parts.password or ""),
        "PGDATABASE": query.get("dbname") or urllib.parse.unquote(parts.path.lstrip("/")),
        "PGSSLMODE": query.get("sslmode"),
        "PGSSLROOTCERT": query.get("sslrootcert"),
    }
    return {"PGDATABASE": "postgres"} | {name: it for name, it in found.items() if it}


async def _make_role(connection: asyncpg.Connection[Any], role: str, *, login: bool) -> None:
    known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
    if not known:
        await connection.execute(f"CREATE ROLE {role} {'LOGIN' if login else 'NOLOGIN'}")


async def _check(connection: asyncpg.Connection[Any], manifest: Manifest) -> None:
    await connection.execute("SELECT set_config('gridlease.tenant', '*', false)")
    head = await connection.fetchval(_HEAD)
    broken = await connection.fetchval("SELECT count(*) FROM billing.broken_links()")
    if head != manifest.head or broken:
        raise Precondition(
            f"The restored books differ: head {head}, {broken} broken links.",
            reason="RESTORE_DIFFERS",
            remedy="Do not use this database; take another backup, or ask who changed this one.",
        )


def _opened(file: Path, folder: Path, secret: bytes | None) -> Path:
    """The backup as it can be read."""
    if not file.is_file() or not is_sealed(file):
        return file
    if secret is None:
        raise Invalid(
            f"{file} is encrypted.",
            reason="BACKUP_ENCRYPTED",
            field="key-file",
            remedy="Name the key file that it was written with.",
        )
    plain = folder / "plain"
    unseal(file, plain, secret)
    return plain


def _pack(folder: Path, manifest: Manifest, dump: Path, file: Path, secret: bytes | None) -> None:
    words = folder / "manifest.json"
    words.write_text(json.dumps(asdict(manifest), indent=1))
    part = folder / "part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w:") as tar:
            tar.add(words, "manifest.json")
            tar.add(dump, "dump")
        stream.flush()
        os.fsync(stream.fileno())
    if secret is not None:
        sealed = folder / "sealed"
        os.close(os.open(sealed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        seal(part, sealed, secret)
        with sealed.open("rb") as stream:
            os.fsync(stream.fileno())
        part = sealed
    try:
        os.link(part, file)  # never over another file
    except FileExistsError as error:
        raise _in_the_way(file) from error


def _unpack(file: Path, dump: Path) -> Manifest:
    manifest = read_manifest(file)
    try:
        with tarfile.open(file, "r:") as tar:
            member = tar.extractfile("dump")
            assert member is not None
            with dump.open("wb") as out:
                while piece := member.read(1 << 20):
                    out.write(piece)
    except (OSError, tarfile.TarError, KeyError, AssertionError) as error:
        raise _malformed(file) from error
    if _digest(dump) != (manifest.dump_sha256, manifest.dump_bytes):
        raise _malformed(file)
    if any(role != f"gl_{role[3:]}" or role[3:] not in ROOMS for role in manifest.roles):
        raise _malformed(file)
    return manifest


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size


def _is_new(file: Path) -> None:
    if file.exists():
        raise _in_the_way(file)


def _folder(file: Path) -> Path:
    folder = file.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Precondition(
            f"{folder} cannot be written.",
            reason="BACKUP_FILE",
            field="file",
            remedy="Name a file in a folder that you may write.",
        )
    return folder


def _in_the_way(file: Path) -> Precondition:
    return Precondition(
        f"{file} is there already.",
        reason="BACKUP_FILE",
        field="file",
        remedy="Name a new file: a backup is never written over another.",
    )


def _malformed(file: Path) -> Invalid:
    return Invalid(
        f"{file} is not a whole backup.",
        reason="BACKUP_MALFORMED",
        field="file",
        remedy="Take another copy of it; its sum is in its manifest.",
    )


def _not_empty() -> Precondition:
    return Precondition(
        "The database is not empty.",
        reason="RESTORE_NOT_EMPTY",
        field="postgres",
        remedy="Restore into a new database; nothing is ever restored over another.",
    )
