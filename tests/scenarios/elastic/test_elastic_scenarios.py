"""Every scenario file here: what the production code decides is what the file says."""

from pathlib import Path

import pytest
from gridlease_scheduler.domain.sizing.autoscale import Load, Scaling, wanted
from gridlease_scheduler.domain.sizing.elastic import Snapshot, change, decide
from gridlease_scheduler.domain.sizing.lessons import Lessons, Row, Trainee
from gridlease_scheduler.domain.sizing.seats import Held, Host

from tests.scenarios.words import span_ms

FILES = sorted(Path(__file__).parent.glob("*.txt"))
SECTIONS = ("cluster", "trains", "service", "requests", "decides")
NOW_MS = 1_000 * 3_600_000
EVERY_MS = 5_000


def sections_of(text):
    """Lines as words, by section."""
    found, current = {name: [] for name in SECTIONS}, None
    for line in text.splitlines():
        if line in SECTIONS:
            current = line
        elif current and line.strip():
            assert line.startswith(" "), line
            found[current].append(line.split())
    return found


def hosts_of(lines):
    for names, count, chip in lines:
        first, _, last = names.partition("..")
        numbers = range(int(first[1:]), int((last or first)[1:]) + 1)
        yield from (Host(f"{first[0]}{number}", chip, int(count)) for number in numbers)


def pairs(words):
    """The ``a=b`` at the front of what is left."""
    while words and "=" in words[0]:
        key, _, value = words.pop(0).partition("=")
        yield key, value


def trainee_of(name, words, hosts):
    """A job from its line."""
    words = list(words)
    given = {"app": name, "done": 0.0, "device_s": 0.0, "least": 1, "most": 16, "restart_s": 0.0}
    chips = {host.node: (host.chip, host.devices) for host in hosts}
    held, rows = None, {}
    while words:
        match words.pop(0):
            case "holds":
                nodes = tuple(sorted((node, int(count)) for node, count in pairs(words)))
                held = Held(chips[nodes[0][0]][0], nodes)
            case "goodput":
                chip = words.pop(0)
                size = max(count for each, count in chips.values() if each == chip)
                rows[chip] = tuple(
                    Row(int(n), -(-int(n) // size), float(rate)) for n, rate in pairs(words)
                )
            case "restart":
                given["restart_s"] = span_ms(words.pop(0)) / 1e3
            case "worked":
                given["device_s"] = span_ms(words.pop(0)) / 1e3
            case "done":
                given["done"] = float(words.pop(0).removesuffix("%")) / 100
            case "app":
                given["app"] = words.pop(0)
            case "least" | "most" as key:
                given[key] = int(words.pop(0))
            case word:
                raise AssertionError(f"what is {word!r}?")
    return Trainee(
        name, age_s=3600.0, held=held, restart_left_s=0.0, restarts=0, hint=1, rows=rows,
        seen=held.devices if held else 0, **given,
    )  # fmt: skip


def train(sections):
    """job -> what is decided, as words."""
    hosts = tuple(hosts_of(sections["cluster"]))
    jobs = tuple(trainee_of(name, words, hosts) for name, *words in sections["trains"])
    found, _ = decide(Snapshot(3600.0, hosts, jobs), Lessons())
    return {
        job.name: [
            change(job.held, found.get(job.name)).lower(),
            *(["to", str(it.devices), it.chip] if (it := found.get(job.name)) else []),
        ]
        for job in jobs
    }


def serve(sections):
    """The service's replicas and why, as words."""
    ((name, *words),) = sections["service"]
    given = dict(zip(words[::2], words[1::2], strict=True))
    spans = {"hold": "hold_ms", "idle": "idle_after_ms"}
    scaling = Scaling(
        **{key: int(given[key]) for key in ("least", "most", "target")},
        **{spans[key]: span_ms(given[key]) for key in spans if key in given},
    )
    loads, at_ms = [], NOW_MS
    for span, in_flight in reversed(sections["requests"]):
        for _ in range(span_ms(span) // EVERY_MS):
            loads.append(Load(at_ms, int(in_flight)))
            at_ms -= EVERY_MS
    found = wanted(loads, int(given["has"]), NOW_MS, scaling)
    return {name: [str(found.replicas), found.reason.code]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path):
    sections = sections_of(path.read_text(encoding="utf-8"))
    found = serve(sections) if sections["service"] else train(sections)
    assert sections["decides"], f"{path.name} expects nothing"
    for name, *expected in sections["decides"]:
        assert found[name][: len(expected)] == expected, (name, found)
