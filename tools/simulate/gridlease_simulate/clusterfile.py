"""A cluster from a TOML file or from Alibaba's list of nodes; every mistake names its field."""

from __future__ import annotations

import tomllib
from pathlib import Path

from gridlease_kernel.faults import Missing
from gridlease_kernel.units import parse_money
from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.snapshot import Site

from gridlease_simulate import catalogue as chips
from gridlease_simulate import csvfile
from gridlease_simulate.cluster import DEFAULT_A100_NANO, FULL_PERCENT, Cluster, Group, resolve
from gridlease_simulate.fields import Table, milli, nearest, whole, wrong

MOST_NODES = 200_000
_PUE_MOST = 10_000
_ALIBABA = {"V100M16": "V100-16GB", "V100M32": "V100-32GB"}

EXAMPLE = """\
# A cluster for `gridlease simulate`. Only [[nodes]] is needed; the rest has defaults.
name = "two halls"
currency = "USD"
busy_percent = 100        # of the way from idle to peak watts, while a device is held

[[site]]
name = "north"
pue = 1.25                # facility watts for each watt of IT
energy_price_per_kwh = "0.10"   # or 24 values: one an hour of the day, UTC
# cap_watts = 60_000      # never more at once, PUE included
carbon_g_per_kwh = 350    # or 24 values

[[nodes]]
name = "h100"
site = "north"
count = 4                 # nodes
chip = "H100-80GB"        # a name or a family of the catalogue
devices = 8               # of each node; leave chip and devices out for CPU nodes
cpu = 128                 # cores of each node
memory = "1TB"
disk = "8TB"
per_rack = 4              # nodes in a rack
watts = 1200              # fans and boards of a node, always drawn
price = "2.69"            # of a device-hour; else [prices], else the catalogue's relative cost

[[nodes]]
name = "l4"
site = "north"
count = 8
chip = "L4"
devices = 4
cpu = 64
memory = "256GB"
watts = 300

[[nodes]]
name = "cpu"
site = "north"
count = 6
cpu = 96
memory = "384GB"
watts = 250

[prices]                  # of a device-hour, or of a core-hour for CPUs
L4-24GB = "0.70"
cpu-x86-64 = "0.03"
a100 = "1.50"             # an A100-80GB-hour, by which relative costs become prices

[tiers]                   # percent of the price
reserved = 70
on_demand = 100
spot = 40

# [[chip]]                # a chip that the catalogue lacks, or other figures for one
# name = "X1-64GB"
# memory = "64GB"
# idle_watts = 60
# peak_watts = 450
# throughput = 180        # relative: A100-80GB = 100
# cost = 120              # relative: A100-80GB = 100
"""


def load(path: Path) -> Cluster:
    """The cluster of a file: TOML, or a CSV with Alibaba's columns (also packed with gzip).

    Raises:
        Missing: NO_SUCH_FILE.
        Invalid: what stands in the file, with field and remedy.
    """
    if not path.is_file():
        raise Missing(
            f"There is no file {path}.",
            reason="NO_SUCH_FILE",
            field="CLUSTER",
            remedy="Write one: `gridlease simulate --example > cluster.toml`.",
        )
    if csvfile.is_csv(path):
        return _alibaba(path)
    try:
        return parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise wrong(
            f"{path} is not a text file.",
            reason="NOT_TEXT",
            field="CLUSTER",
            remedy="Give a TOML file, or Alibaba's nodes as CSV or CSV.gz.",
        ) from error


def parse(text: str) -> Cluster:
    """The cluster that a TOML text describes.

    Raises:
        Invalid: with field and remedy.
    """
    try:
        top = Table(tomllib.loads(text), "")
    except tomllib.TOMLDecodeError as error:
        raise wrong(
            f"It is not TOML: {error}.",
            reason="NOT_TOML",
            field="CLUSTER",
            remedy="`gridlease simulate --example` prints a whole file.",
        ) from error
    name, currency = top.text("name", "cluster"), top.text("currency", "USD")
    busy_percent = top.whole("busy_percent", FULL_PERCENT, most=100)
    found = chips.load()
    for table in top.tables("chip"):
        found = chips.with_chips(found, [chips.read(table, found)])
    sites = _sites(top)
    groups = _groups(top, found, sites)
    a100_nano, prices = _prices(top, found)
    tiers = _tiers(top)
    top.end()
    return Cluster(name, groups, sites, found, currency, prices, tiers, a100_nano, busy_percent)


def _sites(top: Table) -> tuple[Site, ...]:
    found: dict[str, Site] = {}
    for table in top.tables("site"):
        name = table.text("name")
        if name in found:
            raise _twice(table.field("name"), name)
        found[name] = Site(
            name,
            pue_milli=table.milli("pue", 1_000, least=1_000, most=_PUE_MOST),
            cap_watts=table.whole("cap_watts", 0),
            price_nano_per_kwh=table.hourly("energy_price_per_kwh", parse_money),
            carbon_mg_per_kwh=table.hourly("carbon_g_per_kwh", milli),
        )
        table.end()
    return tuple(found.values()) or (Site("site"),)


def _groups(top: Table, found: Catalogue, sites: tuple[Site, ...]) -> tuple[Group, ...]:
    groups: dict[str, Group] = {}
    for at, table in enumerate(top.tables("nodes")):
        group = _group(table, at, found, sites)
        if group.name in groups:
            raise _twice(table.field("name"), group.name)
        groups[group.name] = group
    if not groups:
        raise wrong(
            "The cluster has no nodes.",
            reason="NO_NODES",
            field="nodes",
            remedy="Add a [[nodes]] table; `gridlease simulate --example` shows one.",
        )
    total = sum(group.count for group in groups.values())
    if total > MOST_NODES:
        raise wrong(
            f"The cluster has {total} nodes.",
            reason="TOO_MANY_NODES",
            field="nodes",
            remedy=f"Describe {MOST_NODES} at most.",
        )
    return tuple(groups.values())


def _group(table: Table, at: int, found: Catalogue, sites: tuple[Site, ...]) -> Group:
    site = table.text("site", sites[0].name)
    if all(site != each.name for each in sites):
        raise wrong(
            f"There is no site {site!r}.",
            reason="UNKNOWN_SITE",
            field=table.field("site"),
            remedy=nearest(site, [each.name for each in sites]),
        )
    chip = table.text("chip", "")
    devices = table.whole("devices", 1 if chip else 0, most=1_024)
    if bool(chip) != bool(devices):
        missing = "devices" if chip else "chip"
        raise wrong(
            "A node has both a chip and devices, or neither.",
            reason="CHIP_WITHOUT_DEVICES",
            field=table.field(missing),
            remedy=f"Write {missing}, or leave both out for CPU nodes.",
        )
    group = Group(
        name=table.text("name", f"group{at}"),
        site=site,
        count=table.whole("count", 1, least=1, most=MOST_NODES),
        chip=resolve(found, chip, table.field("chip")).name if chip else "",
        devices=devices,
        cpu_chip=resolve(
            found, table.text("cpu_chip", "cpu-x86-64"), table.field("cpu_chip"), cpu=True
        ).name,
        cpu_milli=table.cores("cpu", 12_000 * max(1, devices)),
        memory_bytes=table.size("memory", (96 << 30) * max(1, devices)),
        disk_bytes=table.size("disk", 2 << 40),
        price_nano=table.money("price", 0),
        watts=table.whole("watts", 0, most=1_000_000),
        per_rack=table.whole("per_rack", 0),
    )
    table.end()
    return group


def _prices(top: Table, found: Catalogue) -> tuple[int, dict[str, int]]:
    table = Table(top.raw("prices", {}), "prices")
    a100_nano = table.money("a100", DEFAULT_A100_NANO)
    prices: dict[str, int] = {}
    for key in table.keys():  # noqa: SIM118 - a Table is no dict
        if key == "a100":
            continue
        chip = found.find(key)
        if chip is None:
            names = [each.name for each in found.chips]
            raise wrong(
                f"There is no chip {key!r} in the catalogue.",
                reason="UNKNOWN_CHIP",
                field=table.field(key),
                remedy=nearest(key, names),
            )
        prices[chip.name] = table.money(key)
    return a100_nano, prices


def _tiers(top: Table) -> dict[Tier, int]:
    table = Table(top.raw("tiers", {}), "tiers")
    found = {}
    for tier in Tier:
        key = tier.value.lower()
        if table.has(key):
            found[tier] = table.whole(key, most=1_000)
    table.end(also=[tier.value.lower() for tier in Tier])
    return found


def _alibaba(path: Path) -> Cluster:
    """Nodes as Alibaba lists them: one site, one group for each kind of node."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    needed = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
    file = csvfile.read(path)
    csvfile.need(file, needed, "CLUSTER")
    for row in file.rows:
        facts = tuple(row.values[key] or "0" for key in ("cpu_milli", "memory_mib", "gpu"))
        kinds.setdefault((*facts, row.values["model"] or ""), []).append(row.values["sn"])
    found = chips.load()
    groups = []
    for at, ((cpu, memory, gpus, model), names) in enumerate(sorted(kinds.items())):
        devices = whole(gpus, "gpu")
        groups.append(
            Group(
                name=f"{model or 'cpu'}-{at}",
                site="site",
                count=len(names),
                chip=resolve(found, alias(model), "model").name if devices else "",
                devices=devices,
                cpu_chip="cpu-x86-64",
                cpu_milli=whole(cpu, "cpu_milli"),
                memory_bytes=whole(memory, "memory_mib") << 20,
                disk_bytes=1 << 50,  # the trace says nothing of disks
                names=tuple(names),
            )
        )
    return Cluster(path.name, tuple(groups), (Site("site"),), found)


def alias(model: str) -> str:
    """The catalogue's name for a chip as Alibaba writes it."""
    return _ALIBABA.get(model, model)


def _twice(field: str, name: str) -> Exception:
    return wrong(
        f"{name!r} is described twice.",
        reason="NAMED_TWICE",
        field=field,
        remedy="Give each its own name.",
    )
