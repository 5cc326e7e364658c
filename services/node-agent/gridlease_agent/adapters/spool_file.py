"""The spool in SQLite: write-ahead log, ``synchronous = FULL``, one transaction for each change."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gridlease_agent.domain.spool import Deadline, Exit, Phase, Row, Spool, Warm, WarmKind, Wiped
from gridlease_agent.domain.task import Ending
from gridlease_agent.ports import Recorded

_LOG = logging.getLogger(__name__)
_VERSION = 2
_SCHEMA = """
create table node (
  one integer primary key check (one = 1),
  spool_id text not null, generation integer not null, named text not null,
  devices text not null default '[]'
) strict;
create table lease (
  lease_id text primary key, phase integer not null, boot_id text not null,
  known_ns integer not null, start_by_ms integer not null, devices text not null,
  deadline text, span_ms integer not null, last integer not null, reason text not null,
  ready_ns integer, segments text not null, counters text not null, exit text,
  final_acknowledged integer not null, stop_at_ns integer, task blob, ending text,
  stop_reason text not null default '', stop_message text not null default ''
) strict;
create table dirty (device_id text primary key) strict;
"""
_SECOND = """
alter table lease add column stop_reason text not null default '';
alter table lease add column stop_message text not null default '';
"""
_UPSERT = """
insert into lease (lease_id, phase, boot_id, known_ns, start_by_ms, devices, deadline, span_ms,
  last, reason, ready_ns, segments, counters, exit, final_acknowledged, stop_at_ns, stop_reason,
  stop_message, wiped)
values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
on conflict (lease_id) do update set phase = excluded.phase, boot_id = excluded.boot_id,
  known_ns = excluded.known_ns, start_by_ms = excluded.start_by_ms, devices = excluded.devices,
  deadline = excluded.deadline, span_ms = excluded.span_ms, last = excluded.last,
  reason = excluded.reason, ready_ns = excluded.ready_ns, segments = excluded.segments,
  counters = excluded.counters, exit = excluded.exit, stop_at_ns = excluded.stop_at_ns,
  final_acknowledged = excluded.final_acknowledged, stop_reason = excluded.stop_reason,
  stop_message = excluded.stop_message, wiped = excluded.wiped
"""
_WARM = """
create table if not exists warm (
  warm_id text primary key, boot_id text not null, kind text not null
) strict
"""
_WIPED = "alter table lease add column wiped text not null default '[]'"


class SpoolFile:
    """One node's spool. Not for two threads at once; any one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as trouble:
            if isinstance(trouble, sqlite3.OperationalError):
                raise
            # What cannot be read is as good as lost, and losing a spool is safe by the protocol.
            aside = self._path.with_suffix(".broken")
            _LOG.error("the spool is unreadable (%s); it was moved to %s", trouble, aside)
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma cache_size = -512")
        found = connection.execute("pragma user_version").fetchone()[0]
        if found < _VERSION:
            script, version = _SECOND if found else _SCHEMA, f"pragma user_version = {_VERSION};"
            connection.executescript(f"begin; {script} {version} commit;")
        columns = {row[1] for row in connection.execute("pragma table_info(lease)")}
        if "wiped" not in columns:
            connection.execute(_WIPED)
        connection.execute(_WARM)
        self._path.chmod(0o600)
        return connection

    def read(self) -> Recorded | None:
        """What is on disk, or None in a new file."""
        node = self._connection.execute(
            "select spool_id, generation, named, devices from node"
        ).fetchone()
        if node is None:
            return None
        cursor = self._connection.execute("select * from lease")
        names = [column[0] for column in cursor.description]
        found = [dict(zip(names, values, strict=True)) for values in cursor]
        dirty = self._connection.execute("select device_id from dirty")
        spool = Spool(
            node[0],
            node[1],
            frozenset(json.loads(node[2])),
            frozenset(row[0] for row in dirty),
            {one["lease_id"]: _row(one) for one in found},
            {one[0]: _warm(*one) for one in self._connection.execute("select * from warm")},
        )
        tasks = {one["lease_id"]: one["task"] for one in found if one["task"] is not None}
        endings = {
            one["lease_id"]: Ending(**json.loads(one["ending"])) for one in found if one["ending"]
        }
        return Recorded(spool, tasks, endings, frozenset(json.loads(node[3])))

    def write(
        self,
        before: Spool | None,
        after: Spool,
        tasks: Mapping[str, bytes],
        endings: Mapping[str, Ending],
    ) -> None:
        """Put the difference on disk; returns once it is durable."""
        run = self._connection.execute
        run("begin immediate")
        try:
            self._write_node(before, after)
            old = before.rows if before else {}
            for lease_id, row in after.rows.items():
                if old.get(lease_id) != row:
                    run(_UPSERT, _columns(row))
            for lease_id in old.keys() - after.rows.keys():
                run("delete from lease where lease_id = ?", (lease_id,))
            was = before.dirty if before else frozenset[str]()
            for device_id in after.dirty - was:
                run("insert or ignore into dirty values (?)", (device_id,))
            for device_id in was - after.dirty:
                run("delete from dirty where device_id = ?", (device_id,))
            self._write_warm(before.warm if before else {}, after.warm)
            for lease_id, task in tasks.items():
                run("update lease set task = ? where lease_id = ?", (task, lease_id))
            for lease_id, ending in endings.items():
                text = json.dumps(_ending(ending))
                run("update lease set ending = ? where lease_id = ?", (text, lease_id))
            run("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                run("rollback")
            raise

    def _write_node(self, before: Spool | None, after: Spool) -> None:
        if before and (before.generation, before.named) == (after.generation, after.named):
            return
        self._connection.execute(
            "insert into node (one, spool_id, generation, named) values (1, ?, ?, ?) "
            "on conflict (one) do update set generation = excluded.generation, "
            "named = excluded.named",
            (after.spool_id, after.generation, json.dumps(sorted(after.named))),
        )

    def _write_warm(self, old: Mapping[str, Warm], new: Mapping[str, Warm]) -> None:
        for warm_id in old.keys() - new.keys():
            self._connection.execute("delete from warm where warm_id = ?", (warm_id,))
        for warm_id in new.keys() - old.keys():
            row = new[warm_id]
            self._connection.execute(
                "insert into warm values (?, ?, ?)",
                (warm_id, row.boot_id, json.dumps(dataclasses.asdict(row.kind))),
            )

    def note_devices(self, devices: Iterable[str]) -> None:
        """From now on there is a record of these devices: one that is not dirty is clean."""
        text = json.dumps(sorted(devices))
        self._connection.execute("update node set devices = ?", (text,))

    def close(self) -> None:
        self._connection.close()


def _warm(warm_id: str, boot_id: str, kind: str) -> Warm:
    facts = json.loads(kind)
    return Warm(warm_id, WarmKind(**facts | {"modules": tuple(facts["modules"])}), boot_id)


def _columns(row: Row) -> tuple[Any, ...]:
    end, ended = row.deadline, row.exit
    return (
        row.lease_id,
        int(row.phase),
        row.boot_id,
        row.known_ns,
        row.start_by_ms,
        json.dumps(row.devices),
        json.dumps([end.boot_id, end.boottime_ns, end.raw_ns]) if end else None,
        row.span_ms,
        int(row.last),
        row.reason,
        row.ready_ns,
        json.dumps(row.segments),
        json.dumps([[segment, meter, n] for (segment, meter), n in row.counters.items()]),
        json.dumps([ended.code, ended.reason, ended.ran_ns]) if ended else None,
        int(row.final_acknowledged),
        row.stop_at_ns,
        row.stop_reason,
        row.stop_message,
        json.dumps([[x.what, x.method, x.verified_ns] for x in row.wiped]),
    )


def _row(one: dict[str, Any]) -> Row:
    return Row(
        one["lease_id"],
        tuple(json.loads(one["devices"])),
        one["boot_id"],
        one["known_ns"],
        one["start_by_ms"],
        Phase(one["phase"]),
        Deadline(*json.loads(one["deadline"])) if one["deadline"] else None,
        one["span_ms"],
        bool(one["last"]),
        one["reason"],
        one["ready_ns"],
        tuple((number, begins_ns) for number, begins_ns in json.loads(one["segments"])),
        {(segment, meter): n for segment, meter, n in json.loads(one["counters"])},
        Exit(*json.loads(one["exit"])) if one["exit"] else None,
        bool(one["final_acknowledged"]),
        one["stop_at_ns"],
        one["stop_reason"],
        one["stop_message"],
        tuple(Wiped(*each) for each in json.loads(one["wiped"])),
    )


def _ending(ending: Ending) -> dict[str, Any]:
    return {
        "message": ending.message,
        "memory_peak_bytes": ending.memory_peak_bytes,
        "cpu_ns": ending.cpu_ns,
        "checkpoint": ending.checkpoint,
        "checkpoint_ns": ending.checkpoint_ns,
    }
