"""A critical flow of 100 Mbit/s beside a flood, and over a path that dies."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

from gridlease_agent.domain.traffic import Class, Traffic

from tests.integration.network.world import SERVER, Town, ip, town

MBPS = 100
LINK_MBPS = 200
_PORT = 9_000


def _python(namespace: str, *words: str, nice: int = 0) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, "nice", "-n", str(nice), sys.executable, "-m",
               "tests.bench.packets", *words]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def _floods(place: Town, tasks: list[str], seconds: float) -> Iterator[None]:
    """Two of the tasks send as fast as they can; all others a little."""
    children = [
        _python(place.tasks[task], "send", SERVER, str(_PORT + 1), "300" if at < 2 else "1",
                str(seconds), nice=10)
        for at, task in enumerate(tasks[:16])
    ]  # fmt: skip
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _flow(place: Town, seconds: float) -> dict[str, float]:
    """The critical flow for so long: share of what was sent that arrived, and the longest gap."""
    receiver = _python(place.server, "receive", str(_PORT), str(seconds), nice=-10)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    source = place.tasks["critical"]
    sender = _python(source, "send", SERVER, str(_PORT), str(MBPS), str(seconds), nice=-10)
    sent = json.loads(sender.communicate(timeout=seconds + 30)[0])["bytes"]
    got = json.loads(receiver.communicate(timeout=seconds + 30)[0])
    return {"percent": 100 * got["bytes"] / sent, "gap_ms": got["gap_ms"]}


def _critical() -> Traffic:
    return Traffic("critical", 0, Class.CRITICAL, MBPS, (f"{SERVER}/32",), ("u1", "u2"))


def under_flood(classes: int, seconds: float) -> dict[str, float]:
    """One critical class and so many others, some of which flood."""
    with town(LINK_MBPS) as place:
        place.task(_critical())
        others = []
        for slot in range(1, classes):
            others.append(f"bulk{slot}")
            place.task(Traffic(others[-1], slot, Class.BULK, 0, (f"{SERVER}/32",), ("u1",)))
        with _floods(place, others, seconds + 20):
            return _flow(place, seconds)


def over_a_failure(seconds: float) -> dict[str, float]:
    """The critical flow's path dies in the middle; nobody tells the agent."""
    with town(LINK_MBPS) as place:
        place.task(_critical())
        place.task(Traffic("bulk", 1, Class.BULK, 0, (f"{SERVER}/32",), ("u2", "u1")))
        cut = threading.Timer(
            seconds / 2, lambda: ip("-n", place.server, "link", "set", "s1", "down")
        )
        cut.start()
        try:
            with _floods(place, ["bulk"], seconds + 20):
                return _flow(place, seconds)
        finally:
            cut.cancel()
            cut.join()
