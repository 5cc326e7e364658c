"""Reads a scenario's text into a snapshot and what is expected of it."""

import math
import re
from dataclasses import dataclass, field, replace

from gridlease_scheduler.adapters.catalogue import load
from gridlease_scheduler.domain.autoscale import Load, Scaling
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import (
    Allocation,
    Needs,
    NetworkNeed,
    Purpose,
    Software,
    Span,
    Tier,
)
from gridlease_scheduler.domain.lessons import Row, Trainee
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.seats import Held
from gridlease_scheduler.domain.snapshot import (
    Offered,
    Pending,
    Quota,
    Reservation,
    Running,
    Share,
    Site,
    Snapshot,
)

CATALOGUE = load()
GIB = 2**30
NANO = 1_000_000_000
NOW = 1_000 * 3_600_000
SECTIONS = (
    "cluster", "sites", "quotas", "shares", "reservations", "asks", "prices", "runs", "waits",
    "trains", "serves", "decides",
)  # fmt: skip
TIERS = {"reserved": Tier.RESERVED, "on-demand": Tier.ON_DEMAND, "spot": Tier.SPOT}
PURPOSES = {x.value.lower(): x for x in Purpose}
SPANS = {x.value.lower(): x for x in Span}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
CHANGES = ("grows", "shrinks", "stays", "moves", "stops", "begins")
_SPAN = re.compile(r"(\d+)(h|m|s)")


class UnreadableError(Exception):
    """A line that says nothing that is known."""


@dataclass
class Expected:
    """What is to become of one job."""

    nodes: list[str] | None = None
    code: str = ""
    by_ms: int | None = None
    ends_for: str = ""
    place: int | None = None
    change: str = ""
    replicas: int | None = None
    booking: str = ""


@dataclass
class Service:
    """A service, its bounds, and what it was asked for lately."""

    name: str
    replicas: int
    scaling: Scaling
    loads: list[Load]


@dataclass
class Scenario:
    """One file."""

    title: str
    snapshot: Snapshot
    asked: list[Reservation]
    trainees: list[Trainee]
    services: list[Service]
    expected: dict[str, Expected] = field(default_factory=dict)


def span_ms(text):
    """``1h30m`` and the like."""
    if not re.fullmatch(rf"({_SPAN.pattern})+", text):
        raise UnreadableError(f"{text!r} is no span of time; write 1h30m or 20s")
    return sum(
        int(n) * {"h": 3_600_000, "m": 60_000, "s": 1_000}[u] for n, u in _SPAN.findall(text)
    )


def read(text):
    """A whole file."""
    title, sections, current = "", {name: [] for name in SECTIONS}, None
    for raw in text.splitlines():
        line = raw.split("#", maxsplit=1)[0].rstrip()
        if not line:
            continue
        if line in SECTIONS:
            current = line
        elif current is None:
            title = title or line
        elif line.startswith(" "):
            sections[current].append(line.split())
        else:
            raise UnreadableError(f"{line!r} is no section; there are {', '.join(SECTIONS)}")
    runs = [lease for at, words in enumerate(sections["runs"], 1) for lease in _runs(words, at)]
    first = len(sections["runs"]) + 1
    snapshot = Snapshot(
        nodes=tuple(x for words in sections["cluster"] for x in _nodes(words, runs)),
        pending=tuple(_waits(words, at) for at, words in enumerate(sections["waits"], first)),
        catalogue=CATALOGUE,
        running=tuple(runs),
        quotas=tuple(_quota(words) for words in sections["quotas"]),
        shares=tuple(_share(words) for words in sections["shares"]),
        reservations=tuple(_reservation(words) for words in sections["reservations"]),
        sites=tuple(_site(words) for words in sections["sites"]),
        offers=tuple(x for words in sections["prices"] for x in _prices(words)),
        now_ms=NOW,
    )
    return Scenario(
        title,
        snapshot,
        [_reservation(words) for words in sections["asks"]],
        [_trainee(words) for words in sections["trains"]],
        [_service(words) for words in sections["serves"]],
        dict(_expected(words) for words in sections["decides"]),
    )


class Words:
    """A line's words, taken from the left."""

    def __init__(self, words):
        self.name, self.left = words[0], words[1:]
        self.line = " ".join(words)

    def take(self, *phrase):
        """Is this next? Then it is taken."""
        if self.left[: len(phrase)] == list(phrase):
            del self.left[: len(phrase)]
            return True
        return False

    def word(self):
        """The next one, whatever it is."""
        if not self.left:
            raise UnreadableError(f"{self.line!r} ends too early")
        return self.left.pop(0)

    def span(self):
        return span_ms(self.word())

    def number(self):
        return int(self.word())

    def is_chip(self):
        """``8 A100-80GB``, or a family."""
        return (
            len(self.left) > 1
            and self.left[0].isdigit()
            and CATALOGUE.unknown([self.left[1]]) is None
        )

    def stray(self):
        return UnreadableError(f"{self.left[0]!r} in {self.line!r} says nothing that is known")


def _names(name):
    """``n1..n4`` is four names."""
    found = re.fullmatch(r"(.*?)(\d+)\.\.\1(\d+)", name)
    if not found:
        return [name]
    return [f"{found[1]}{at}" for at in range(int(found[2]), int(found[3]) + 1)]


def _nodes(line, runs):
    words, devices, fields, drivers = Words(line), [], {}, []
    clean = True
    while words.left:
        if words.is_chip():
            count, chip = words.number(), CATALOGUE.find(words.word())
            devices += [
                Device(f"gpu-{len(devices) + k}", chip.name, chip.vendor, chip.memory_bytes)
                for k in range(count)
            ]
        elif words.left[1:2] == ["cores"]:
            fields["cpu_milli"] = 1_000 * words.number()
            words.word()
        elif words.take("link"):
            fields["link_mbps"] = words.number()
        elif words.left[0] in ("site", "rack", "rail"):
            fields.update([(words.word(), words.word())])
        elif words.take("driver"):
            drivers.append((words.word(), words.word()))
        elif words.take("cordoned"):
            fields["cordoned"] = True
        elif words.take("cleaning"):
            clean = False
        elif words.take("emulated"):
            fields["emulated"] = True
        else:
            raise words.stray()
    for name in _names(words.name):
        mine = [x.allocation for x in runs if x.node_id == name]
        basic = {
            "site": "s1",
            "cpu_chip": "cpu-x86-64",
            "architecture": "x86_64",
            "cpu_milli": 64_000,
            "memory_bytes": 1_024 * GIB,
            "disk_bytes": 4_096 * GIB,
            "devices": tuple(replace(x, clean=clean) for x in devices),
            "drivers": tuple(drivers),
            "used_cpu_milli": sum(x.cpu_milli for x in mine),
            "used_memory_bytes": sum(x.memory_bytes for x in mine),
            "used_disk_bytes": sum(x.disk_bytes for x in mine),
            "held": frozenset(d for x in mine for d in x.device_ids),
        }
        yield Node(name, **(basic | fields))


def _job(words, fields, needs):
    """What waiting and running jobs may both say; whether something was said."""
    if words.is_chip():
        count, chip = words.number(), words.word()
        need = AcceleratorNeed((chip,), count=count)
        if "accelerator" in needs:
            needs["alternatives"] = (*needs.get("alternatives", ()), need)
        else:
            needs["accelerator"] = need
    elif words.take("or"):
        pass
    elif words.take("else"):
        needs["alternatives_ordered"] = True
    elif words.left[1:2] in (["tasks"], ["cores"]):
        count, what = words.number(), words.word()
        if what == "tasks":
            fields["tasks"] = fields["tasks_max"] = count
        else:
            needs["cpu_milli"] = 1_000 * count
    elif words.left[0] in TIERS:
        needs["tier"] = TIERS[words.word()]
    elif words.left[0] in PURPOSES:
        needs["purpose"] = PURPOSES[words.word()]
    elif words.take("one"):
        needs["span"] = SPANS[words.word()]
    elif words.take("priority"):
        fields["priority"] = words.number()
    elif words.left[0] in ("tenant", "project"):
        fields.update([(words.word(), words.word())])
    elif words.take("at", "most"):
        fields["longest_ms"] = words.span()
    elif words.take("since"):
        fields["submitted_ms"] = NOW - words.span()
    elif words.take("back", "since"):
        fields["queued_ms"] = NOW - words.span()
    elif words.take("pays"):
        needs["max_price_nano_per_hour"] = round(float(words.word()) * NANO)
    elif words.take("in", "reservation"):
        fields["reservation"] = words.word()
    elif words.take("notice"):
        fields["notice_ms"] = words.span()
    else:
        return _wish(words, needs)
    return True


def _wish(words, needs):
    """The rarer half of what a job may ask for."""
    if words.take("needs"):
        needs["software"] = Software(words.word(), words.word())
    elif words.take("link"):
        needs["network"] = NetworkNeed(guaranteed_mbps=words.number())
    elif words.take("deferrable"):
        needs["deferrable_ms"] = words.span()
    elif words.take("clean"):
        needs["low_carbon"] = True
    else:
        return False
    return True


def _basic():
    fields = {"tenant": "t", "project": "p", "priority": 50, "notice_ms": 30_000}
    return fields, {"cpu_milli": 1_000, "memory_bytes": GIB, "disk_bytes": GIB}


def _waits(line, number):
    words, (fields, needs) = Words(line), _basic()
    while words.left:
        if not _job(words, fields, needs):
            raise words.stray()
    fields.setdefault("submitted_ms", NOW - 60_000)
    return Pending(
        job=words.name, attempt=1, number=number, lost_after_ms=0, needs=Needs(**needs), **fields
    )


_LAST = {}


def _runs(line, number):
    words, (fields, needs) = Words(line), _basic()
    nodes, extra = [], {"worked_ms": 3_600_000}
    while words.left:
        if words.take("on"):
            while words.left and re.fullmatch(r"[a-z]+\d+(\.\.[a-z]+\d+)?", words.left[0]):
                nodes += _names(words.word())
        elif words.take("worked"):
            extra["worked_ms"] = words.span()
        elif words.take("saved"):
            extra["saved_ms"] = words.span()
        elif words.take("evicted"):
            extra["evictions"] = words.number()
        elif words.take("ending"):
            extra["closing"] = True
        elif not _job(words, fields, needs):
            raise words.stray()
    for gone in ("tasks", "tasks_max", "submitted_ms", "queued_ms"):
        fields.pop(gone, None)
    extra["started_ms"] = NOW - extra["worked_ms"]
    need = needs.get("accelerator")
    count = need.count if need else 0
    if number == 1:
        _LAST.clear()
    for at, name in enumerate(nodes):
        begin = _LAST.get(name, 0)
        _LAST[name] = begin + count
        ids = tuple(f"gpu-{k}" for k in range(begin, begin + count))
        chip = CATALOGUE.matching(need)[0].name if need else "cpu-x86-64"
        milli = 1_000 * count or needs["cpu_milli"]
        yield Running(
            lease_id=f"{words.name}/{at}", job=words.name, index=at, node_id=name, number=number,
            tier=needs.get("tier", Tier.ON_DEMAND),
            allocation=Allocation(needs["cpu_milli"], GIB, GIB, ids, chip, milli),
            **fields, **extra,
        )  # fmt: skip


def _quota(line):
    words, fields = Words(line), {}
    while words.left:
        if words.take("of"):
            fields["chip"] = words.word()
        elif words.take("guaranteed"):
            fields["guaranteed_milli"] = 1_000 * words.number()
        elif words.take("at", "most"):
            fields["limit_milli"] = 1_000 * words.number()
        elif words.take("under"):
            fields["parent"] = words.word()
        else:
            raise words.stray()
    return Quota(words.name, **fields)


def _share(line):
    words, fields = Words(line), {}
    while words.left:
        if words.take("weight"):
            fields["weight"] = words.number()
        elif words.take("used"):
            fields["used"] = words.number() * 1_000 * 3_600_000
        else:
            raise words.stray()
    return Share(words.name, **fields)


def _reservation(line):
    words, fields = Words(line), {"site": "", "project": "p"}
    length = 0
    while words.left:
        if words.is_chip():
            fields["quantity_milli"] = 1_000 * words.number()
            fields["chip"] = CATALOGUE.find(words.word()).name
        elif words.left[0] in ("site", "project"):
            fields.update([(words.word(), words.word())])
        elif words.take("in"):
            fields["begins_ms"] = NOW + words.span()
        elif words.take("began"):
            fields["begins_ms"] = NOW - words.span()
        elif words.take("for"):
            length = words.span()
        else:
            raise words.stray()
    return Reservation(words.name, ends_ms=fields["begins_ms"] + length, **fields)


def _site(line):
    """Prices in a currency's units a kWh, carbon in grams a kWh, by hours of the day in UTC."""
    words, fields, hours = Words(line), {}, {"price": [], "carbon": []}
    while words.left:
        if words.take("cap"):
            fields["cap_watts"] = words.number()
        elif words.take("rack"):
            name = words.word()
            fields["rack_cap_watts"] = (*fields.get("rack_cap_watts", ()), (name, words.number()))
        elif words.left[0] in hours:
            known = hours[words.word()]
            value = float(words.word())
            first, last = (words.number(), words.number()) if words.take("from") else (0, 24)
            known[:] = known or [0] * 24
            known[first:last] = [value] * (last - first)
        else:
            raise words.stray()
    return Site(
        words.name,
        price_nano_per_kwh=tuple(round(x * NANO) for x in hours["price"]),
        carbon_mg_per_kwh=tuple(round(x * 1_000) for x in hours["carbon"]),
        **fields,
    )


def _trainee(line):
    """An elastic job: what it holds, its bounds, and what doubling its devices gains."""
    words, power, has = Words(line), 0.8, None
    fields = {"least": 1, "most": 64, "done": 0.0, "age_s": 0.0}
    while words.left:
        if words.take("holds"):
            count, chip = words.number(), CATALOGUE.find(words.word()).name
            words.take("on")
            names = _names(words.word())
            has = Held(chip, tuple((name, count // len(names)) for name in names))
        elif words.take("from"):
            fields["least"] = words.number()
            words.take("to")
            fields["most"] = words.number()
        elif words.take("doubling", "gains"):
            power = math.log2(1 + int(words.word().rstrip("%")) / 100)
        elif words.take("done"):
            fields["done"] = int(words.word().rstrip("%")) / 100
        elif words.take("age"):
            fields["age_s"] = words.span() / 1_000
        else:
            raise words.stray()
    seen = has.devices if has else 0
    chips = {x.chip for x in (has,) if x} or {"A100-80GB"}
    rows = {
        chip: tuple(Row(n, 1, float(n) ** power) for n in range(1, 2 * max(1, seen) + 1))
        for chip in chips
    }
    device_s = seen * fields["age_s"]
    return Trainee(
        words.name, app=words.name, held=has, rows=rows, restart_left_s=0.0, restart_s=30.0,
        restarts=0, device_s=device_s, hint=4, seen=seen, **fields,
    )  # fmt: skip


def _service(line):
    words, stretches, replicas = Words(line), [], 0
    fields = {"least": 0, "most": 8, "target": 10}
    while words.left:
        if words.take("has"):
            replicas = words.number()
        elif words.take("from"):
            fields["least"] = words.number()
            words.take("to")
            fields["most"] = words.number()
        elif words.take("each", "carries"):
            fields["target"] = words.number()
        elif words.take("load"):
            load = words.number()
            words.take("for")
            stretches.append((load, words.span()))
        elif words.take("before"):
            pass
        else:
            raise words.stray()
    at_ms = NOW - sum(span for _, span in stretches)
    loads = []
    for load, span in stretches:  # the last of them ends now
        loads += [Load(at, load) for at in range(at_ms + 5_000, at_ms + span + 1, 5_000)]
        at_ms += span
    return Service(words.name, replicas, Scaling(**fields), loads)


def _prices(line):
    words = Words(line)
    while words.left:
        tier = TIERS[words.word()]
        yield Offered(words.name, tier, round(float(words.word()) * NANO))


def _expected(line):
    words, found = Words(line), Expected()
    while words.left:
        if words.take("starts"):
            found.nodes = []
            if words.take("on"):
                while words.left and words.left[0] not in ORDINALS:
                    found.nodes += _names(words.word())
        elif words.take("waits"):
            found.code = words.word()
        elif words.take("by"):
            found.by_ms = words.span()
        elif words.take("ends", "for"):
            found.ends_for = words.word()
        elif words.left[0] in CHANGES:
            found.change = words.word()
        elif words.take("is", "booked"):
            found.booking = "is booked"
        elif words.take("is", "refused,", "free", "in"):
            found.booking = f"is refused, free in {words.word()}"
        elif words.take("gets"):
            found.replicas = words.number()
            words.word()
        elif words.left[0] in ORDINALS:
            found.place = ORDINALS.index(words.word()) + 1
        else:
            raise words.stray()
    return words.name, found
