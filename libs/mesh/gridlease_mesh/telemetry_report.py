"""One report as it was received: checked at once, its values worked out when they are asked for.

Most reports are only replaced by the next, so their readers should not pay for every value.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import add, attrgetter
from typing import Any

from gridlease.telemetry.v1 import telemetry_pb2

from gridlease_mesh.telemetry_sample import (
    MAX_DEVICES,
    MAX_LEASES,
    Column,
    DeviceIdentity,
    DeviceReadings,
    HostReadings,
    LeaseReadings,
    NodeIdentity,
    Quality,
    Sample,
    Table,
)

RELATIVE = ("_bytes", "_ns", "_mj")  # units of the columns sent less the key's
_KNOWN = bytes(Quality)

Section = telemetry_pb2.DeviceReadings | telemetry_pb2.LeaseReadings


class BadReport(ValueError):  # noqa: N818 - what came, not an error of ours
    """The peer sent bytes that are no report."""


class Report:
    """A node's report. The readings are worked out at each asking: keep what you read."""

    __slots__ = ("_key", "_message", "dropped", "identity", "node", "sequence", "stream")

    def __init__(self, node: str, message: telemetry_pb2.NodeReport, key: Sample | None) -> None:
        """Check that all of it can be read.

        Args:
            key: the sample of the key report it builds on; None where it is one itself.

        Raises:
            BadReport: columns do not fit the identity.
        """
        self.node = node
        self.stream = message.stream
        self.sequence = message.sequence
        self.dropped = message.dropped  # samples that the sender gave up before this one
        self.identity = key.identity if key is not None else _identity_in(message.identity)
        self._message = message
        self._key = key
        _DEVICE.check(message.devices, len(self.identity.devices))
        _LEASE.check(message.leases, len(self.identity.leases))
        _check_qualities(message.host.quality, len(_HOST_FIELDS))

    @property
    def time_unix_ms(self) -> int:
        """When it was sampled, by the node's clock."""
        return self._message.time_unix_ms

    @property
    def devices(self) -> DeviceReadings:
        """Of devices, in the order of the identity."""
        key = self._key.devices if self._key is not None else None
        rows = len(self.identity.devices)
        return DeviceReadings._make(_DEVICE.read(self._message.devices, key, rows))

    @property
    def host(self) -> HostReadings:
        """Of the host."""
        key = self._key.host if self._key is not None else NO_HOST
        values = map(add, key[:-1], _host_values(self._message.host))
        return HostReadings._make((*values, self._message.host.quality or key.quality))

    @property
    def leases(self) -> LeaseReadings:
        """Of leases, in the order of the identity."""
        key = self._key.leases if self._key is not None else None
        rows = len(self.identity.leases)
        return LeaseReadings._make(_LEASE.read(self._message.leases, key, rows))

    @property
    def sample(self) -> Sample:
        """All of it."""
        return Sample(self.time_unix_ms, self.identity, self.devices, self.host, self.leases)


class _Layout:
    """How to read the columns of one table."""

    __slots__ = ("_columns", "_relative")

    def __init__(self, kind: type[Table]) -> None:
        names = kind._fields[:-1]
        self._columns: Callable[[Section], tuple[Any, ...]] = attrgetter(*names)
        self._relative = tuple(name.endswith(RELATIVE) for name in names)

    def check(self, section: Section, rows: int) -> None:
        """Whether each column has a value a row, or none.

        Raises:
            BadReport: one has not.
        """
        for size in map(len, self._columns(section)):
            if size and size != rows:
                raise BadReport(f"a column has {size} values for {rows} rows")
        _check_qualities(section.quality, rows * len(self._relative))

    def read(self, section: Section, key: Table | None, rows: int) -> list[Column | bytes]:
        """The columns and the qualities, as they were sampled."""
        read: list[Column | bytes] = []
        width = len(self._relative)
        before: tuple[Any, ...] = key[:width] if key is not None else ((0,) * rows,) * width
        for given, was, relative in zip(
            self._columns(section), before, self._relative, strict=True
        ):
            values = given[:]  # a list: much faster to walk than protobuf's container
            if not values:
                read.append(was)
            elif relative and key is not None:
                read.append(tuple(map(add, was, values)))
            else:
                read.append(tuple(values))
        unset = key.quality if key is not None else bytes(width * rows)
        read.append(section.quality or unset)
        return read


def _check_qualities(given: bytes, cells: int) -> None:
    if given and (len(given) != cells or given.translate(None, _KNOWN)):
        raise BadReport(f"the qualities are not {cells} known ones")


_DEVICE, _LEASE = _Layout(DeviceReadings), _Layout(LeaseReadings)
_HOST_FIELDS = HostReadings._fields[:-1]
_host_values: Callable[[telemetry_pb2.HostReadings], tuple[int, ...]] = attrgetter(*_HOST_FIELDS)
NO_HOST = HostReadings(quality=bytes(len(_HOST_FIELDS)))


def _identity_in(identity: telemetry_pb2.NodeIdentity) -> NodeIdentity:
    if len(identity.devices) > MAX_DEVICES or len(identity.leases) > MAX_LEASES:
        raise BadReport("more devices or leases than a report may have")
    return NodeIdentity(
        identity.hostname,
        identity.agent_version,
        identity.boot_id,
        tuple(
            DeviceIdentity(each.id, each.chip, each.vendor, each.serial, each.memory_bytes)
            for each in identity.devices
        ),
        tuple(identity.leases),
    )
