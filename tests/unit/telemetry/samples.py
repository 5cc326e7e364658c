"""Samples as hypothesis draws them."""

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
