"""Migrations: numbered SQL under alembic, by any number of processes at once."""

import asyncio
import sys

import asyncpg
import pytest
from gridlease_kernel.faults import Precondition
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool


@pytest.fixture
def files(tmp_path):
    (tmp_path / "0001_init.sql").write_text(
        "CREATE TABLE job (id bigserial PRIMARY KEY, name text NOT NULL DEFAULT 'a:b %s');\n"
        "CREATE FUNCTION two() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 2; END $$;\n"
        "INSERT INTO job DEFAULT VALUES;\n"
    )
    (tmp_path / "0002_more.sql").write_text(
        "ALTER TABLE job ADD COLUMN n int; REVOKE DELETE ON job FROM gl_scheduler;"
    )
    return tmp_path


async def _fetchval(dsn, sql):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_files_apply_once_in_order(database, files):
    assert await migrate(database, "scheduler", files) == ["0001_init", "0002_more"]
    assert await migrate(database, "scheduler", files) == []
    (files / "0003_last.sql").write_text("ALTER TABLE job ADD COLUMN m int;")
    assert await migrate(database, "scheduler", files) == ["0003_last"]
    assert await _fetchval(database, "SELECT version_num FROM scheduler.alembic_version") == (
        "0003_last"
    )
    assert await _fetchval(database, "SELECT name FROM scheduler.job") == "a:b %s"


async def test_a_failing_file_changes_nothing(database, files):
    (files / "0003_bad.sql").write_text("CREATE TABLE half (id int); SELECT nonsense;")
    with pytest.raises(Precondition) as caught:
        await migrate(database, "scheduler", files)
    assert caught.value.reason == "MIGRATION_FAILED"
    assert "nonsense" in str(caught.value)
    assert await _fetchval(database, "SELECT to_regnamespace('scheduler')") is None


async def test_an_older_release_refuses_a_newer_schema(database, files):
    await migrate(database, "scheduler", files)
    (files / "0002_more.sql").unlink()
    with pytest.raises(Precondition) as caught:
        await migrate(database, "scheduler", files)
    assert caught.value.reason == "DATABASE_TOO_NEW"


async def test_a_gap_in_the_numbers_is_refused(database, files):
    (files / "0004_gap.sql").write_text("SELECT 1")
    with pytest.raises(Precondition) as caught:
        await migrate(database, "scheduler", files)
    assert caught.value.reason == "MIGRATION_FILES"


_PROCESS = """
import asyncio, pathlib, sys
from gridlease_store.migrate import migrate
for schema in sys.argv[3:]:
    asyncio.run(migrate(sys.argv[1], schema, pathlib.Path(sys.argv[2])))
"""


async def test_four_processes_migrate_twelve_times_at_once(database, files):
    (files / "0002_more.sql").write_text("ALTER TABLE job ADD COLUMN n int;")
    rooms = ("scheduler", "billing", "gateway")

    async def start(turn):
        order = rooms[turn % 3 :] + rooms[: turn % 3]
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", _PROCESS, database, str(files), *order,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    processes = await asyncio.gather(*(start(turn) for turn in range(4)))
    said = await asyncio.gather(*(it.communicate() for it in processes))
    assert [it.returncode for it in processes] == [0] * 4, said
    for room in rooms:
        assert await _fetchval(database, f"SELECT count(*) FROM {room}.job") == 1


async def test_twelve_tasks_migrate_one_room_at_once(database, files):
    done = await asyncio.gather(*(migrate(database, "scheduler", files) for _ in range(12)))
    assert sorted(len(it) for it in done) == [0] * 11 + [2]


async def test_a_room_reads_its_own_tables_and_no_other(database, files):
    await migrate(database, "scheduler", files)
    (files / "0002_more.sql").unlink()
    await migrate(database, "billing", files)
    pool = await connect_pool(database, schema="scheduler", role="gl_scheduler")
    try:
        await pool.execute("INSERT INTO job DEFAULT VALUES")
        assert await pool.fetchval("SELECT count(*) FROM job") == 2
        for forbidden in (
            "SELECT * FROM billing.job",
            "DELETE FROM job",  # 0002 revoked it
            "UPDATE alembic_version SET version_num = 'x'",
            "CREATE TABLE mine (id int)",
            "SELECT * FROM pg_authid",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(forbidden)
    finally:
        await pool.close()


async def test_a_role_may_log_in_where_asked(postgres, database, files):
    (files / "0002_more.sql").unlink()
    await migrate(database, "logs", files, login=True)
    name = database.partition("/@/")[2] or database
    dsn = database.replace("postgres@", "gl_logs@", 1)
    assert dsn != database, name
    pool = await connect_pool(dsn, schema="logs")
    assert await pool.fetchval("SELECT current_user::text || two()") == "gl_logs2"
    await pool.close()
