"""Samples as hypothesis draws them, and one as a busy node would take it."""

import random

from gridlease_mesh.telemetry_sample import (
    MAX_VALUE,
    DeviceIdentity,
    DeviceReadings,
    HostReadings,
    LeaseReadings,
    NodeIdentity,
    Quality,
    sample,
)
from hypothesis import strategies as st

_values = st.one_of(st.integers(-9, 9), st.integers(-MAX_VALUE, MAX_VALUE))


def _readings(kind, rows):
    column = st.one_of(st.just(()), st.lists(_values, min_size=rows, max_size=rows).map(tuple))
    cells = rows * (len(kind._fields) - 1)
    quality = st.lists(st.sampled_from(Quality), min_size=cells, max_size=cells).map(bytes)
    columns = [column] * (len(kind._fields) - 1)
    return st.builds(kind, *columns, st.one_of(st.just(b""), quality))


_width = len(HostReadings._fields) - 1
_hosts = st.builds(
    HostReadings,
    *[_values] * _width,
    st.lists(st.sampled_from(Quality), min_size=_width, max_size=_width).map(bytes),
)


@st.composite
def identities(draw):
    ids = draw(st.lists(st.text(max_size=6), max_size=3))
    return NodeIdentity(
        hostname=draw(st.text(max_size=6)),
        boot_id=draw(st.text(max_size=6)),
        devices=tuple(DeviceIdentity(each, "A100", "nvidia", "s", 80 << 30) for each in ids),
        leases=tuple(draw(st.lists(st.text(max_size=6), max_size=3))),
    )


@st.composite
def samples(draw, identity=None):
    who = draw(identity if identity is not None else identities())
    return sample(
        time_unix_ms=draw(st.integers(0, MAX_VALUE)),
        identity=who,
        devices=draw(_readings(DeviceReadings, len(who.devices))),
        host=draw(_hosts),
        leases=draw(_readings(LeaseReadings, len(who.leases))),
    )


@st.composite
def sequences(draw):
    """Samples of one node, most of one identity."""
    pool = draw(st.lists(identities(), min_size=1, max_size=2))
    return draw(st.lists(samples(st.sampled_from(pool)), min_size=1, max_size=12))


def busy(second, devices=64, leases=8, seed=0):
    """What a busy node measures in one second: all moves but the memory clock."""
    chance = random.Random(seed * 100_000 + second)
    who = NodeIdentity(
        hostname="rack7-node12.site-a.example",
        agent_version="0.1.0",
        boot_id="6f1c2f0e-7b1a-4f0c-9a0e-2b8f6f6f1a11",
        devices=tuple(
            DeviceIdentity(
                f"gpu-{index}",
                "A100-80GB",
                "nvidia",
                f"GPU-5f3a1c9e-{index:04d}-4a6b-8c7d-{index:012d}",
                80 << 30,
            )
            for index in range(devices)
        ),
        leases=tuple(f"ls-01jd{index:022d}" for index in range(leases)),
    )

    def column(rows, low, high, step=0):
        return tuple(chance.randint(low, high) + step * second for _ in range(rows))

    return sample(
        time_unix_ms=1_795_000_000_000 + 1000 * second,
        identity=who,
        devices=DeviceReadings(
            column(devices, 900, 1000),
            column(devices, 60 << 30, 70 << 30),
            column(devices, 250_000, 400_000),
            column(devices, 55_000, 75_000),
            tuple(10**11 + 10**9 * index + 325_000 * second for index in range(devices)),
            column(devices, 1305, 1410),
            (1593,) * devices,
            bytes([Quality.MEASURED]) * (7 * devices),
        ),
        host=HostReadings(
            *(column(1, 0, 10**6, 10**9)[0] for _ in range(7)),
            bytes([Quality.MEASURED]) * 7,
        ),
        leases=LeaseReadings(
            *(column(leases, 0, 10**6, 10**8) for _ in range(5)),
            column(leases, 10, 40),
            bytes([Quality.MEASURED]) * (6 * leases),
        ),
    )
