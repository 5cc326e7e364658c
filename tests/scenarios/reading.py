"""Reads a scenario's text into a snapshot and what is expected of it."""

import re
from dataclasses import dataclass, field, replace

from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import (
    Allocation,
    Needs,
    NetworkClass,
    NetworkNeed,
    Purpose,
    Software,
    Span,
    Tenancy,
    Tier,
)
from gridlease_scheduler.domain.links.network import Link
from gridlease_scheduler.domain.node import Device, Node
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

from tests.scenarios.words import CATALOGUE, UnreadableError, Words, names

GIB = 2**30
NANO = 1_000_000_000
NOW = 1_000 * 3_600_000
SECTIONS = (
    "cluster", "sites", "links", "quotas", "shares", "reservations", "asks", "prices", "runs",
    "waits", "decides",
)  # fmt: skip
TIERS = {"reserved": Tier.RESERVED, "on-demand": Tier.ON_DEMAND, "spot": Tier.SPOT}
TENANCIES = {"cores": Tenancy.EXCLUSIVE_DEVICE, "host": Tenancy.EXCLUSIVE_HOST}
PURPOSES = {x.value.lower(): x for x in Purpose}
SPANS = {x.value.lower(): x for x in Span}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass
class Expected:
    """What is to become of one job."""

    nodes: list[str] | None = None
    code: str = ""
    by_ms: int | None = None
    ends_for: str = ""
    place: int | None = None
    booking: str = ""
    over: str = ""


@dataclass
class Scenario:
    """One file."""

    title: str
    snapshot: Snapshot
    asked: list[Reservation]
    expected: dict[str, Expected] = field(default_factory=dict)


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
        links=tuple(_link(words) for words in sections["links"]),
        offers=tuple(x for words in sections["prices"] for x in _prices(words)),
        now_ms=NOW,
    )
    return Scenario(
        title,
        snapshot,
        [_reservation(words) for words in sections["asks"]],
        dict(_expected(words) for words in sections["decides"]),
    )


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
        elif words.take("has"):
            fields["images"] = fields.get("images", frozenset()) | {words.word()}
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
    for name in names(words.name):
        leases = [x for x in runs if x.node_id == name]
        mine = [x.allocation for x in leases]
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
            "reserved_mbps": sum(x.network_mbps for x in leases),
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
    network = needs.get("network", NetworkNeed())
    if words.take("needs"):
        needs["software"] = Software(words.word(), words.word())
    elif words.take("link"):
        needs["network"] = replace(network, guaranteed_mbps=words.number())
    elif words.take("critical"):
        needs["network"] = replace(network, network_class=NetworkClass.CRITICAL)
    elif words.take("within"):
        needs["network"] = replace(network, latency_us=int(words.word().removesuffix("us")))
    elif words.take("deferrable"):
        needs["deferrable_ms"] = words.span()
    elif words.take("clean"):
        needs["low_carbon"] = True
    elif words.take("image"):
        needs["image"] = words.word()
    elif words.take("alone", "on"):
        needs["tenancy"] = TENANCIES[words.word()]
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
                nodes += names(words.word())
        elif words.take("worked"):
            extra["worked_ms"] = words.span()
        elif words.take("saved"):
            extra["saved_ms"] = words.span()
        elif words.take("evicted"):
            extra["evictions"] = words.number()
        elif words.take("ending"):
            extra["closing"] = True
        elif words.take("over"):
            extra["network_path"] = tuple(words.word().split(","))
        elif not _job(words, fields, needs):
            raise words.stray()
    for gone in ("tasks", "tasks_max", "submitted_ms", "queued_ms"):
        fields.pop(gone, None)
    extra["started_ms"] = NOW - extra["worked_ms"]
    need = needs.get("accelerator")
    count = need.count if need else 0
    extra["network_mbps"] = needs.get("network", NetworkNeed()).guaranteed_mbps
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


def _link(line):
    """From one place to another; places as operators write them."""
    words, fields = Words(line), {"latency_us": 0}
    a, b = words.word(), words.word()
    while words.left:
        if words.take("carries"):
            fields["capacity_mbit"] = words.number()
        elif words.take("takes"):
            fields["latency_us"] = int(words.word().removesuffix("us"))
        elif words.take("down"):
            fields["up"] = False
        else:
            raise words.stray()
    return Link(words.name, a, b, **fields)


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
                while words.left and words.left[0] not in (*ORDINALS, "over"):
                    found.nodes += names(words.word())
        elif words.take("over"):
            found.over = words.word()
        elif words.take("waits"):
            found.code = words.word()
        elif words.take("by"):
            found.by_ms = words.span()
        elif words.take("ends", "for"):
            found.ends_for = words.word()
        elif words.take("is", "booked"):
            found.booking = "is booked"
        elif words.take("is", "refused,", "free", "in"):
            found.booking = f"is refused, free in {words.word()}"
        elif words.left[0] in ORDINALS:
            found.place = ORDINALS.index(words.word()) + 1
        else:
            raise words.stray()
    return words.name, found
