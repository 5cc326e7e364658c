"""Real packets between real namespaces: what a task may reach, and that nothing else is reached."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from gridlease_agent.domain.traffic import Class, Traffic
from gridlease_kernel.faults import Unreachable

from tests.integration.network.world import SERVER, Town, ip, town

pytestmark = [
    pytest.mark.root,
]

_ASK = """
import socket, sys
host, port, source = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.7)
if source: s.bind((source, 0))
try:
    s.sendto(b"ping", (host, int(port)))
    s.recvfrom(100)
    print("yes")
except OSError as trouble:
    print("no:" + type(trouble).__name__)
"""
_ECHO = """
import contextlib, select, socket
datagrams, streams = [], []
for port in (7007, 7008):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: an answer comes from whom was asked
    s.bind(("0.0.0.0", port))
    datagrams.append(s)
    streams.append(socket.create_server(("0.0.0.0", port)))
print("ready", flush=True)
while True:
    for one in select.select(datagrams + streams, [], [])[0]:
        if one in streams:
            one.accept()[0].close()
            continue
        data, told, _, peer = one.recvmsg(3000, 64)
        asked = bytes(4) + told[0][2][8:12] + bytes(4)
        with contextlib.suppress(OSError):
            one.sendmsg([data], [(socket.IPPROTO_IP, 8, asked)], 0, peer)
"""


class _Echo:
    """A server in a namespace for as long as the block runs."""

    def __init__(self, namespace: str) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", _ECHO]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == "ready\n"

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()


def _reached(namespace: str, host: str, source: str = "") -> bool:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", _ASK, host, "7007", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip() == "yes"


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town() as made:
        made.task(Traffic("a", 0, Class.CRITICAL, 100, (f"{SERVER}/32",), ("u1", "u2")))
        made.task(Traffic("b", 1, Class.BULK, 0, (f"{SERVER}/32",), ("u1", "u2")))
        made.task(Traffic("c", 2))
        yield made


def test_a_task_reaches_what_it_may_and_no_other_tenant(place: Town) -> None:
    a, b, c = (place.tasks[name] for name in "abc")
    with _Echo(place.server), _Echo(b), _Echo(c):
        assert _reached(a, SERVER)
        assert _reached(b, SERVER)
        assert not _reached(c, SERVER), "it was allowed nothing"
        for source, target in ((a, 1), (a, 2), (b, 2), (c, 1)):
            assert not _reached(source, Traffic("x", target).address)
        assert not _reached(a, "198.19.1.1"), "an uplink's own address"


def test_neither_the_fabric_nor_the_host_is_reached(place: Town) -> None:
    a = place.tasks["a"]
    with _Echo(place.fabric.name):
        for host in (Traffic("a", 0).gateway, Traffic("b", 1).gateway, "198.19.1.0"):
            assert not _reached(a, host), host
    host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        host.bind(("127.0.0.1", 7007))
        assert not _reached(a, "127.0.0.1"), "loopback is its own"
    finally:
        host.close()


def test_a_gang_is_joined_and_only_it(place: Town) -> None:
    place.task(Traffic("g0", 10))
    place.task(Traffic("g1", 11))
    place.fabric.join(["g0", "g1"])
    g0, g1 = place.tasks["g0"], place.tasks["g1"]
    with _Echo(g1), _Echo(place.tasks["b"]):
        assert _reached(g0, Traffic("g1", 11).address)
        assert not _reached(g0, Traffic("b", 1).address)
        assert not _reached(place.tasks["a"], Traffic("g1", 11).address)


def test_a_forged_source_goes_nowhere(place: Town) -> None:
    c = place.tasks["c"]
    ip("-n", c, "addr", "add", f"{Traffic('a', 0).address}/32", "dev", "eth0")
    with _Echo(place.server):
        assert not _reached(c, SERVER, source=Traffic("a", 0).address)


def test_bytes_are_counted_and_a_path_is_left(place: Town) -> None:
    a = place.tasks["a"]
    with _Echo(place.server):
        before = place.fabric.counted("a")
        assert _reached(a, SERVER)
        after = place.fabric.counted("a")
        assert 32 <= after.sent - before.sent <= 400
        assert 32 <= after.received - before.received <= 400
        ip("-n", place.server, "link", "set", "s1", "down")  # nobody is told
        try:
            assert _reached(a, SERVER)
        finally:
            ip("-n", place.server, "link", "set", "s1", "up")
        ip("-n", place.fabric.name, "link", "set", "u1", "down")
        try:
            place.fabric.path_changed("u1", works=False)
            assert _reached(a, SERVER)
        finally:
            ip("-n", place.fabric.name, "link", "set", "u1", "up")
            place.fabric.path_changed("u1", works=True)
        assert _reached(a, SERVER)


def test_what_is_released_leaves_nothing_and_may_come_again(place: Town) -> None:
    for _ in range(2):
        place.task(Traffic("z", 20, Class.BULK, 10, (f"{SERVER}/32",), ("u1",)))
        place.fabric.release("z")
        subprocess.run(["ip", "netns", "del", place.tasks.pop("z")], check=True)
    rules = subprocess.run(
        ["ip", "-n", place.fabric.name, "rule"], capture_output=True, text=True, check=True
    ).stdout
    assert "t20" not in rules
    place.fabric.release("never known")


def test_the_kernels_refusal_is_told(place: Town) -> None:
    with pytest.raises(Unreachable) as caught:
        place.fabric.admit(Traffic("y", 21), "no-such-namespace")
    assert caught.value.reason == "NETWORK_REFUSED"
