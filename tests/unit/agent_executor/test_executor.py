"""The wire between core and executor, and what a core that was taken over cannot do with it."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.executor import account, codec, cover, frames, names, trouble, verbs
from gridlease_agent.executor.client import Executor
from gridlease_agent.executor.device_record import DeviceRecord
from gridlease_agent.executor.guard import Guarded, GuardedFiles
from gridlease_agent.executor.server import SOCKET, Server, listen
from gridlease_agent.images.manifest import Image
from gridlease_agent.noop import NoopSandboxes
from gridlease_agent.runtimes.spec import Mount, SandboxSpec, uid_base
from gridlease_agent.runtimes.states import Deadline, Exited, Running, SandboxState
from gridlease_agent.runtimes.work import give
from gridlease_kernel.faults import Fault, Forbidden, Invalid, Missing, Precondition, Unreachable

FAR = Deadline("boot", 10**18, 10**18, 0)


def spec(**values: Any) -> SandboxSpec:
    return SandboxSpec("ls-1", ("/bin/true",), **{"uid_base": uid_base(3), **values})


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[Executor]:
    files = LeaseFiles(tmp_path, kept_bytes=10_000, kept_hours=1)
    sandboxes = Guarded(
        NoopSandboxes(), tmp_path / "environments", files.taken_slots, DeviceRecord(tmp_path, ())
    )
    guarded = GuardedFiles(files, sandboxes)
    rooms = {"sandboxes": sandboxes, "files": guarded, "reports": files.reports}
    listener = listen(tmp_path, os.getgid())
    thread = threading.Thread(target=Server(rooms, os.getuid()).serve, args=(listener,))
    thread.start()
    client = Executor(tmp_path, os.getuid())
    yield client
    client.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.mark.parametrize("name", list(verbs.every()))
def test_every_verb_has_a_wire(name: str) -> None:
    assert verbs.find(name).name == name


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (SandboxSpec, spec(env=(("A", "ü\ud800"),), keep=("out",), secrets=(("K", "v"),))),
        (SandboxState, Running(1, 2)),
        (tuple[int, str] | None, None),
        (dict[str, tuple[bytes, ...]], {"a": (b"\0\xff",)}),
        (Image, None),
    ],
)
def test_what_is_sent_arrives(hint: Any, value: Any) -> None:
    kind = codec.of(hint)
    if value is not None or hint is not Image:
        assert kind.decode(kind.encode(value)) == value


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True),
        (int, "1"),
        (str, None),
        (bytes, "?"),
        (tuple[int, ...], 1),
        (tuple[int, str], [1]),
        (Deadline, ["b", 1, 2]),
        (SandboxState, ["Elsewhere", []]),
        (SandboxState, [["Running"], []]),
        (SandboxSpec, {}),
    ],
)
def test_another_shape_is_refused(hint: Any, value: Any) -> None:
    with pytest.raises(Invalid):
        codec.of(hint).decode(value)


def test_a_fault_arrives_as_it_was_raised() -> None:
    sent = Missing("Gone.", reason="GONE", field="f", remedy="Look.", metadata={"a": "b"})
    heard = trouble.heard(trouble.told(sent))
    assert isinstance(heard, Missing)
    assert (heard.message, heard.reason, heard.metadata) == ("Gone.", "GONE", {"a": "b"})
    again = trouble.heard(trouble.told(OSError(28, "full")))
    assert isinstance(again, OSError)
    assert again.errno == 28


def test_verbs_are_answered(executor: Executor, tmp_path: Path) -> None:
    sandboxes, files = executor.room("sandboxes"), executor.room("files")
    work = files.prepare("ls-1", ["gpu-0"])
    Path(f"/proc/self/fd/{work}/f").write_text("brought")
    os.close(work)
    assert (tmp_path / "leases" / "ls-1" / "work" / "f").read_text() == "brought"
    assert files.held("ls-1") == ("gpu-0",)
    sandboxes.start("ls-1", spec(emulated_duration_ms=60_000), FAR)
    assert [one.lease_id for one in sandboxes.look()] == ["ls-1"]
    assert sandboxes.alive(["ls-1", "ls-2"]) == ("ls-1",)
    sandboxes.stop("ls-1", 0, "SPOT", word=("", ""))
    state = sandboxes.inspect("ls-1")
    assert isinstance(state, Exited)
    assert state.record.reason == "SPOT"
    with pytest.raises(Missing, match="No sandbox"):
        sandboxes.extend("ls-2", FAR)
    assert files.reports.read(["ls-1"])["ls-1"].progress is None
    assert files.open_log("ls-1") is None
    (tmp_path / "leases" / "ls-1" / "log").write_bytes(b"words")
    log = files.open_log("ls-1")
    assert os.read(log, 9) == b"words"
    os.close(log)


def test_files_of_what_runs_are_left_alone(executor: Executor) -> None:
    files = executor.room("files")
    os.close(files.prepare("ls-1", []))
    executor.room("sandboxes").start("ls-1", spec(emulated_duration_ms=60_000), FAR)
    with pytest.raises(Precondition, match="still runs"):
        files.discard("ls-1")
    with pytest.raises(Precondition, match="still runs"):
        files.keep("ls-1", ["*"])
    assert files.folders() == ["ls-1"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "-x", ".hidden", "a\0b", "a" * 200, "ü", "a\n"]
)
def test_hostile_names_are_refused(executor: Executor, name: str) -> None:
    for ask in (executor.room("files").discard, executor.room("sandboxes").kill):
        with pytest.raises(Invalid):
            ask(name)
    with pytest.raises(Invalid):
        executor.room("sandboxes").alive(["ls-1", name])


@pytest.mark.parametrize(
    "message",
    [
        {}, [], ["files.folders"], ["files.folders", {}], ["files.folders", [1]],
        ["files.__init__", []], ["sandboxes._check", []], ["os.system", ["true"]],
        ["files.reports", []], [1, []],
    ],
)  # fmt: skip
def test_what_is_no_verb_is_refused(executor: Executor, tmp_path: Path, message: Any) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / SOCKET))
        frames.send(raw, message)
        answer, _handle = frames.receive(raw, files=True)
    assert answer[:2] == ["fault", "Invalid"]


def test_what_is_too_long_ends_the_connection(executor: Executor, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / SOCKET))
        raw.sendall(b"\xff\xff\xff\xff")
        assert raw.recv(1) == b""
    assert executor.room("files").folders() == []


def test_a_stranger_is_turned_away(tmp_path: Path) -> None:
    listener = listen(tmp_path, os.getgid())
    server = Server({}, os.getuid() + 1)
    thread = threading.Thread(target=server.serve, args=(listener,))
    thread.start()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / SOCKET))
        assert raw.recv(1) == b""
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_who_listens_in_the_executors_place_is_not_asked(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridlease_agent.executor.client._AWAY_S", 0.05)
    with pytest.raises(Unreachable):
        Executor(tmp_path, os.getuid() + 1).room("files").folders()


@pytest.mark.parametrize(
    "values",
    [
        {"uid_base": 0},
        {"uid_base": uid_base(3) + 1},
        {"uid_base": uid_base(0) - 65_536},
        {"mounts": (Mount("/etc", "/x"),)},
        {"cpus": "0"},
        {"environment": "/"},
        {"environment": "/root/environments/0123456789abcdef"},
        {"lease_id": "ls-2"},
    ],
)
def test_a_spec_reaches_nothing_beyond_its_lease(
    executor: Executor, values: dict[str, Any]
) -> None:
    with pytest.raises(Forbidden) as refused:
        executor.room("sandboxes").start("ls-1", dataclasses.replace(spec(), **values), FAR)
    assert refused.value.reason == "BEYOND_ITS_LEASE"
    assert executor.room("sandboxes").look() == ()


@pytest.mark.root
def test_no_two_leases_share_users(executor: Executor, tmp_path: Path) -> None:
    work = tmp_path / "leases" / "ls-9" / "work"
    work.mkdir(parents=True)
    os.chown(work, uid_base(3) + 1000, uid_base(3) + 1000)
    with pytest.raises(Forbidden, match="another lease"):
        executor.room("sandboxes").start("ls-1", spec(), FAR)


def test_links_are_never_followed(executor: Executor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    folder = tmp_path / "leases" / "ls-1"
    folder.mkdir(parents=True)
    (folder / "log").symlink_to(secret)
    with pytest.raises(OSError, match=r"symbolic|loop"):
        executor.room("files").open_log("ls-1")
    below = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    (tmp_path / "to").symlink_to(tmp_path / "leases")
    for path in ("to/ls-1/log", "leases/ls-1/log", "../x", "/etc/passwd", ""):
        with pytest.raises((OSError, Fault)):
            names.open_below(below, path)
    os.close(below)


@pytest.mark.root
def test_a_folder_is_given_without_what_is_not_its_own(tmp_path: Path) -> None:
    outside, work = tmp_path / "outside", tmp_path / "work"
    outside.write_text("root's")
    (work / "a").mkdir(parents=True)
    (work / "a" / "f").write_text("f")
    (work / "a" / "link").symlink_to(outside)
    give(work, 70_000)
    assert (work / "a" / "f").stat().st_uid == 70_000
    assert outside.stat().st_uid == 0
    os.link(outside, work / "second")
    with pytest.raises(Precondition):
        give(work, 70_001)
    assert outside.stat().st_uid == 0


@pytest.mark.root
def test_a_core_sees_what_it_needs_and_no_more(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "state").mkdir(parents=True)
    (closed / "secret").write_text("x")
    closed.chmod(0o700)
    tmp_path.chmod(0o755)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            cover.unshare()
            cover.cover([closed / "state"], 60_700, 60_700)
            account.become(60_700, 60_700)
            os.write(write, repr(sorted(x.name for x in closed.iterdir())).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 999) == b"['state']"
    os.close(read)
    os.waitpid(pid, 0)
    assert (closed / "secret").exists()


@pytest.mark.root
def test_the_core_cannot_put_its_folder_in_the_place_of_roots(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "spool.sqlite").touch()
    account.share_out(state, 60_700, 60_700)
    tmp_path.chmod(0o755)
    assert (state / "spool.sqlite").stat().st_uid == 60_700
    pid = os.fork()
    if not pid:
        code = 1
        try:
            cover.unshare()
            cover.cover([state], 60_700, 60_700)
            account.become(60_700, 60_700)
            (state / "own").mkdir()
            try:
                (state / "leases").rename(state / "aside")
            except PermissionError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
