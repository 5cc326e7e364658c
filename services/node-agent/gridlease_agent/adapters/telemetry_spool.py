"""What was measured while nobody could be told: SQLite, a quota, thinned with age.

Each sample is kept as a report that can be read alone, compressed. A sample is known by its
stream (drawn for each boot of the host) and its sequence in it, and keeps both when it is told
later, so a reader knows what it has already. It is telemetry: a crash of the host may cost the
newest seconds, and beyond the quota the oldest give way.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path

from gridlease.telemetry.v1 import telemetry_pb2
from gridlease_mesh.telemetry_codec import Encoder
from gridlease_mesh.telemetry_sample import Sample

from gridlease_agent.domain.thinning import Mark, surplus
from gridlease_agent.ports import KeptReport

_LOG = logging.getLogger(__name__)
_SCHEMA = """
create table boot (
  number integer primary key, boot_id text not null unique, stream integer not null,
  next integer not null, told integer not null, dropped integer not null
) strict;
create table sample (
  boot integer not null references boot, sequence integer not null, at_ms integer not null,
  report blob not null, primary key (boot, sequence)
) strict, without rowid;
"""
_BLOCK = 256  # sequences reserved at once; what a killed agent leaves of them is never used
_TOGETHER = 10  # samples written at once
_THIN_EVERY = 300  # samples


class TelemetrySpool:
    """One node's unsent telemetry. For one thread at a time."""

    def __init__(self, path: Path, boot_id: str, quota_bytes: int) -> None:
        self._path = path
        self._quota_bytes = quota_bytes
        self._db = self._open()
        self._boot, self.stream, self._next, self._told, self._dropped = self._begin(boot_id)
        self._reserved = self._next
        self._buffer: list[tuple[int, int, int, bytes]] = []
        self._since_thinned = 0
        self._waiting: int = self._db.execute("select count(*) from sample").fetchone()[0]

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.DatabaseError as trouble:
            _LOG.warning("the telemetry spool is set aside: %s", trouble)
            self._path.replace(self._path.with_suffix(".broken"))
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("pragma auto_vacuum = incremental")
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = normal")
        db.execute("pragma wal_autocheckpoint = 256")
        db.execute("pragma cache_size = -512")
        if db.execute("pragma user_version").fetchone()[0] == 0:
            db.executescript(f"begin; {_SCHEMA} pragma user_version = 1; commit;")
        self._path.chmod(0o600)
        return db

    def _begin(self, boot_id: str) -> tuple[int, int, int, int, int]:
        """This boot's own row; rows of boots that have nothing left go."""
        self._db.execute(
            "delete from boot where boot_id <> ? and number not in (select boot from sample)",
            (boot_id,),
        )
        self._db.execute(
            "insert or ignore into boot (boot_id, stream, next, told, dropped) "
            "values (?, ?, 1, 0, 0)",
            (boot_id, secrets.randbits(63)),
        )
        found = self._db.execute(
            "select number, stream, next, told, dropped from boot where boot_id = ?", (boot_id,)
        ).fetchone()
        return (found[0], found[1], found[2], found[3], found[4])

    # -- numbering ------------------------------------------------------------------------------

    def sequence(self) -> int:
        """The next sample's, never given before in this boot."""
        if self._next >= self._reserved:
            self._reserved = self._next + _BLOCK
            self._note(self._boot, self._told, self._dropped)
        number, self._next = self._next, self._next + 1
        return number

    def dropped_before(self, sequence: int) -> int:
        """This boot's samples that were given up before this one is told; it is told now."""
        self._dropped += max(0, sequence - self._told - 1)
        self._told = max(self._told, sequence)
        return self._dropped

    def _note(self, boot: int, told: int, dropped: int) -> None:
        self._db.execute(
            "update boot set next = max(next, ?), told = ?, dropped = ? where number = ?",
            (self._reserved if boot == self._boot else 0, told, dropped, boot),
        )

    # -- keeping --------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Samples kept, of all boots."""
        return self._waiting

    @property
    def size_bytes(self) -> int:
        """What the file takes, without its log."""
        (pages,) = self._db.execute("pragma page_count").fetchone()
        (free,) = self._db.execute("pragma freelist_count").fetchone()
        (each,) = self._db.execute("pragma page_size").fetchone()
        return int((pages - free) * each)

    def put(self, sequence: int, at_ms: int, taken: Sample) -> None:
        """Keep a sample; it is on disk with the next ten."""
        payload = Encoder(self.stream).encode(taken, sequence=sequence, dropped=0)
        self._buffer.append((self._boot, sequence, at_ms, zlib.compress(payload, 1)))
        self._waiting += 1
        if len(self._buffer) >= _TOGETHER:
            self.flush()
        self._since_thinned += 1
        if self._since_thinned >= _THIN_EVERY:
            self.thin(at_ms)

    def flush(self) -> None:
        """Put what was kept on disk."""
        if not self._buffer:
            return
        self._db.execute("begin immediate")
        self._db.executemany("insert or replace into sample values (?, ?, ?, ?)", self._buffer)
        self._db.execute("commit")
        self._buffer.clear()

    def thin(self, now_ms: int) -> None:
        """Drop what age and quota say. ``now_ms``: since this boot."""
        self._since_thinned = 0
        self.flush()
        for (boot,) in self._db.execute("select distinct boot from sample").fetchall():
            rows = self._db.execute(
                "select sequence, at_ms from sample where boot = ? order by sequence", (boot,)
            )
            old = surplus((Mark(*row) for row in rows), now_ms if boot == self._boot else None)
            self._drop((boot, sequence) for sequence in old)
        while self.size_bytes > self._quota_bytes and self._waiting:
            oldest = self._db.execute(
                "select boot, sequence from sample order by boot, sequence limit ?",
                (max(1, self._waiting // 10),),
            ).fetchall()
            self._drop(oldest)
            _LOG.warning("telemetry beyond its quota was dropped", extra={"samples": len(oldest)})
        self._db.execute("pragma incremental_vacuum")

    def _drop(self, keys: Iterable[tuple[int, int]]) -> None:
        self._db.execute("begin immediate")
        self._db.executemany("delete from sample where boot = ? and sequence = ?", keys)
        self._db.execute("commit")
        (self._waiting,) = self._db.execute("select count(*) from sample").fetchone()

    # -- telling --------------------------------------------------------------------------------

    def first(self, most: int, now_ms: int, wall_ms: int) -> list[KeptReport]:
        """The oldest samples, all of one boot, as they are to be sent.

        Their times are set by the wall clock of now, where they are of this boot: it may have
        been wrong while the node was cut off.
        """
        self.flush()
        boot = self._db.execute("select min(boot) from sample").fetchone()[0]
        if boot is None:
            return []
        told, dropped = self._db.execute(
            "select told, dropped from boot where number = ?", (boot,)
        ).fetchone()
        if boot == self._boot:
            told, dropped = self._told, self._dropped
        rows = self._db.execute(
            "select sequence, at_ms, report from sample where boot = ? order by sequence limit ?",
            (boot, most),
        ).fetchall()
        batch: list[KeptReport] = []
        for sequence, at_ms, packed in rows:
            dropped += max(0, sequence - told - 1)
            told = max(told, sequence)
            report = telemetry_pb2.NodeReport.FromString(zlib.decompress(packed))
            report.dropped = dropped
            if boot == self._boot:
                report.time_unix_ms = wall_ms - (now_ms - at_ms)
            batch.append(KeptReport(boot, sequence, at_ms, report.SerializeToString()))
        return batch

    def told(self, batch: list[KeptReport]) -> None:
        """All of these have arrived: forget them."""
        last = batch[-1]
        told, dropped = self._db.execute(
            "select told, dropped from boot where number = ?", (last.boot,)
        ).fetchone()
        if last.boot == self._boot:
            told, dropped = self._told, self._dropped
        for one in batch:
            dropped += max(0, one.sequence - told - 1)
            told = max(told, one.sequence)
        if last.boot == self._boot:
            self._told, self._dropped = told, dropped
        self._drop((one.boot, one.sequence) for one in batch)
        self._note(last.boot, told, dropped)
        if not self._waiting:
            self._db.execute("pragma incremental_vacuum")

    def close(self) -> None:
        """What is kept stays."""
        self.flush()
        self._note(self._boot, self._told, self._dropped)
        self._db.close()
