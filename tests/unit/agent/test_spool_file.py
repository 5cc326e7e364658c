from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.domain.spool import Deadline, Exit, Phase, Row, Spool
from gridlease_agent.domain.task import Ending

ROW = Row(
    "ls-1",
    ("gpu-0", "scratch:ls-1"),
    "boot",
    5,
    600_000,
    Phase.EXITED,
    Deadline("boot", 10, 11),
    1000,
    last=True,
    reason="BUDGET_EXHAUSTED",
    ready_ns=6,
    segments=((1, 0), (2, 8)),
    counters={(1, "run"): 2, (2, "run"): 3},
    exit=Exit(7, "EXITED", 5),
    final_acknowledged=True,
    stop_at_ns=9,
    stop_reason="PREEMPTED",
    stop_message="A job of priority 90 needs its place.",
)
SPOOL = Spool(
    "sp-1",
    4,
    frozenset({"ls-1"}),
    frozenset({"gpu-0"}),
    {"ls-1": ROW, "ls-2": Row("ls-2", (), "b", 1, 2)},
)


def test_a_new_file_holds_nothing(tmp_path: Path) -> None:
    assert SpoolFile(tmp_path / "spool.sqlite").read() is None


def test_what_was_written_is_read_back_whole(tmp_path: Path) -> None:
    ending = Ending("killed", 5, 6, "step-9", 7)
    store = SpoolFile(tmp_path / "spool.sqlite")
    store.write(None, SPOOL, {"ls-1": b"spec"}, {"ls-1": ending})
    store.note_devices(["gpu-0", "gpu-1"])
    store.close()
    recorded = SpoolFile(tmp_path / "spool.sqlite").read()
    assert recorded is not None
    assert recorded.spool == SPOOL
    assert recorded.tasks == {"ls-1": b"spec"}
    assert recorded.endings == {"ls-1": ending}
    assert recorded.devices == {"gpu-0", "gpu-1"}


def test_a_change_writes_the_difference(tmp_path: Path) -> None:
    store = SpoolFile(tmp_path / "spool.sqlite")
    store.write(None, SPOOL, {"ls-1": b"spec"}, {})
    store.note_devices(["gpu-0"])
    after = replace(
        SPOOL,
        generation=5,
        named=frozenset(),
        dirty=frozenset({"gpu-1"}),
        rows={"ls-1": replace(ROW, phase=Phase.CLEAN)},
    )
    store.write(SPOOL, after, {}, {})
    recorded = store.read()
    assert recorded is not None
    assert recorded.spool == after
    assert recorded.tasks == {"ls-1": b"spec"}  # the row was updated, not replaced
    assert recorded.devices == {"gpu-0"}


def test_a_failed_write_leaves_all_as_it_was(tmp_path: Path) -> None:
    store = SpoolFile(tmp_path / "spool.sqlite")
    store.write(None, SPOOL, {}, {})
    wrong = replace(SPOOL, generation=9, rows={"ls-1": replace(ROW, boot_id=None)})  # type: ignore[arg-type] # on purpose
    with pytest.raises(sqlite3.IntegrityError):
        store.write(SPOOL, wrong, {}, {})
    recorded = store.read()
    assert recorded is not None
    assert recorded.spool == SPOOL


def test_a_spool_of_an_older_agent_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    store = SpoolFile(path)
    store.write(None, SPOOL, {}, {"ls-1": Ending("killed", 5, 6)})
    store.close()
    with sqlite3.connect(path) as old:
        old.executescript(
            "alter table lease drop column stop_reason; alter table lease drop column stop_message;"
            """update lease set ending = '{"message": "killed", "cpu_ns": 6}';"""
            "pragma user_version = 1;"
        )
    for _ in range(2):
        recorded = SpoolFile(path).read()
        assert recorded is not None
        assert recorded.spool.rows["ls-1"] == replace(ROW, stop_reason="", stop_message="")
        assert recorded.endings["ls-1"] == Ending("killed", cpu_ns=6)


def test_it_is_durable_at_each_commit(tmp_path: Path) -> None:
    store = SpoolFile(tmp_path / "spool.sqlite")
    pragma = store._connection.execute
    assert pragma("pragma journal_mode").fetchone() == ("wal",)
    assert pragma("pragma synchronous").fetchone() == (2,)
