"""The bytes of a node's reports: pure, with the memory that differences need on both sides.

Now and then a *key report* carries the identity and all values. Every other report builds on the
last key report and on nothing else, so that it can be read whatever was lost between: energy,
sizes and times are sent less the key's, the rest as they are (it is as short, and faster to
read), and a column that equals the key's takes no bytes. Losing a key report alone makes the next
ones unreadable: the reader then asks for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import add, attrgetter, sub
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
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
    Readings,
    Sample,
    Table,
)

KEY_EVERY = 60  # reports
MAX_REPORT_BYTES = 512 << 10
_parse: Callable[[bytes], telemetry_pb2.NodeReport] = telemetry_pb2.NodeReport.FromString
_KNOWN = bytes(Quality)
_RELATIVE = ("_bytes", "_ns", "_mj")  # units of the columns sent less the key's

Section = telemetry_pb2.DeviceReadings | telemetry_pb2.HostReadings | telemetry_pb2.LeaseReadings


class BadReport(ValueError):  # noqa: N818 - what came, not an error of ours
    """The peer sent bytes that are no report."""


class Report(NamedTuple):
    """A report as it was read; ``dropped`` counts what its sender gave up before it."""

    node: str
    stream: int
    sequence: int
    dropped: int
    sample: Sample


class Encoder:
    """The sending side of one stream."""

    def __init__(self, stream: int, *, key_every: int = KEY_EVERY) -> None:
        assert key_every > 0, key_every
        self._stream = stream
        self._key_every = key_every
        self._key: Sample | None = None
        self._key_sequence = 0
        self._since_key = 0

    def ask_key(self) -> None:
        """Make the next report a key report."""
        self._key = None

    def encode(self, taken: Sample, *, sequence: int, dropped: int) -> bytes:
        """The bytes of a sample; sequences only grow."""
        key = self._key
        report = telemetry_pb2.NodeReport(
            stream=self._stream,
            sequence=sequence,
            dropped=dropped,
            time_unix_ms=taken.time_unix_ms,
        )
        if key is None or self._since_key >= self._key_every or key.identity != taken.identity:
            self._key, self._key_sequence, self._since_key = taken, sequence, 0
            key = None
            report.identity.CopyFrom(_identity_out(taken.identity))
        self._since_key += 1
        report.key = self._key_sequence
        _fill(report.devices, taken.devices, key and key.devices)
        _fill_host(report.host, taken.host, key.host if key is not None else _NO_HOST)
        _fill(report.leases, taken.leases, key and key.leases)
        return report.SerializeToString()


def _fill(section: Section, taken: Table, key: Table | None) -> None:
    """Write the columns that differ from the key's (or from zero)."""
    for index, name in enumerate(taken._fields[:-1]):
        column = taken[index]
        if key is None:
            if any(column):
                getattr(section, name).extend(column)
        elif column != key[index]:
            relative = name.endswith(_RELATIVE)
            getattr(section, name).extend(map(sub, column, key[index]) if relative else column)
    if any(taken.quality) if key is None else taken.quality != key.quality:
        section.quality = taken.quality


def _fill_host(section: telemetry_pb2.HostReadings, taken: HostReadings, key: HostReadings) -> None:
    for name, value, was in zip(taken._fields[:-1], taken[:-1], key[:-1], strict=True):
        if value != was:
            setattr(section, name, value - was)
    if taken.quality != key.quality:
        section.quality = taken.quality


@dataclass(slots=True)
class Counts:
    """What became of a node's reports, as far as the reader can know."""

    received: int = 0  # came and were read
    lost: int = 0  # neither came nor were told as dropped
    dropped: int = 0  # told by the sender as dropped
    keyless: int = 0  # came, but their key report had not
    repeated: int = 0  # came twice or too late
    bad: int = 0  # were no reports

    def add(self, other: Counts) -> None:
        """Count ``other`` too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Decoder:
    """The reading side of one node, over its restarts."""

    __slots__ = ("_dropped", "_key", "_key_sequence", "_node", "_sequence", "_stream", "counts")

    def __init__(self, node: str) -> None:
        self.counts = Counts()
        self._node = node
        self._stream: int | None = None
        self._sequence = 0
        self._dropped = 0
        self._key: Sample | None = None
        self._key_sequence = 0

    @property
    def wants_key(self) -> bool:
        """Whether the last report could not be read for want of its key report."""
        return self._key is None and self._stream is not None

    def decode(self, payload: bytes) -> Report | None:
        """The report in a message; None where it is counted only (keyless, repeated).

        Raises:
            BadReport: the bytes are no report of this version; counted.
        """
        try:
            report = self._read(payload)
        except (DecodeError, BadReport) as error:
            self.counts.bad += 1
            raise BadReport(str(error)) from error
        return report

    def _read(self, payload: bytes) -> Report | None:
        if len(payload) > MAX_REPORT_BYTES:
            raise BadReport(f"{len(payload)} bytes are too many")
        report = _parse(payload)
        sequence = report.sequence
        if sequence < 1 or report.dropped >= sequence or not 1 <= report.key <= sequence:
            raise BadReport("the counters contradict each other")
        same = report.stream == self._stream
        if same and sequence <= self._sequence:
            self.counts.repeated += 1
            return None
        key = self._key if same and report.key == self._key_sequence else None
        is_key = report.HasField("identity")
        if is_key != (report.key == sequence):
            raise BadReport("a key report has an identity, and no other has")
        sample = None
        if is_key:
            sample = _sample_in(report, _identity_in(report.identity), None)
        elif key is not None:
            sample = _sample_in(report, key.identity, key)
        self._count_gap(report, same)
        if sample is None:
            self._key = None
            self.counts.keyless += 1
            return None
        if is_key:
            self._key, self._key_sequence = sample, sequence
        self.counts.received += 1
        return Report(self._node, report.stream, sequence, report.dropped, sample)

    def _count_gap(self, report: telemetry_pb2.NodeReport, same: bool) -> None:
        """Count what should have come between the report before and this one."""
        known = self._stream is not None  # a node heard for the first time owes us nothing
        if not same:
            self._stream, self._sequence, self._dropped = report.stream, 0, 0
        missing = report.sequence - self._sequence - 1
        if known and missing:
            told = min(missing, max(0, report.dropped - self._dropped))
            self.counts.dropped += told
            self.counts.lost += missing - told
        self._sequence, self._dropped = report.sequence, report.dropped


def _sample_in(
    report: telemetry_pb2.NodeReport, identity: NodeIdentity, key: Sample | None
) -> Sample:
    devices, leases = len(identity.devices), len(identity.leases)
    return Sample(
        report.time_unix_ms,
        identity,
        DeviceReadings._make(_DEVICE.read(report.devices, key and key.devices, devices)),
        _host_in(report.host, key and key.host),
        LeaseReadings._make(_LEASE.read(report.leases, key and key.leases, leases)),
    )


class _Layout:
    """How to read the columns of one table."""

    __slots__ = ("_columns", "_relative")

    def __init__(self, kind: type[Table]) -> None:
        names = kind._fields[:-1]
        self._columns: Callable[[Section], tuple[Any, ...]] = attrgetter(*names)
        self._relative = tuple(name.endswith(_RELATIVE) for name in names)

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
            elif len(values) != rows:
                raise BadReport(f"a column has {len(values)} values for {rows} rows")
            elif relative and key is not None:
                read.append(tuple(map(add, was, values)))
            else:
                read.append(tuple(values))
        read.append(_qualities_in(section.quality, key, width * rows))
        return read


def _qualities_in(given: bytes, key: Readings | None, cells: int) -> bytes:
    if not given:
        return key.quality if key is not None else bytes(cells)
    if len(given) != cells or given.translate(None, _KNOWN):
        raise BadReport(f"the qualities are not {cells} known ones")
    return given


_DEVICE, _LEASE = _Layout(DeviceReadings), _Layout(LeaseReadings)
_HOST_FIELDS = HostReadings._fields[:-1]
_host_values: Callable[[telemetry_pb2.HostReadings], tuple[int, ...]] = attrgetter(*_HOST_FIELDS)
_NO_HOST = HostReadings(quality=bytes(len(_HOST_FIELDS)))


def _host_in(host: telemetry_pb2.HostReadings, key: HostReadings | None) -> HostReadings:
    values = _host_values(host)
    was = key if key is not None else _NO_HOST
    quality = _qualities_in(host.quality, was, len(values))
    return HostReadings._make((*map(add, was[: len(values)], values), quality))


def _identity_out(identity: NodeIdentity) -> telemetry_pb2.NodeIdentity:
    return telemetry_pb2.NodeIdentity(
        hostname=identity.hostname,
        agent_version=identity.agent_version,
        boot_id=identity.boot_id,
        devices=[
            telemetry_pb2.DeviceIdentity(
                id=each.id,
                chip=each.chip,
                vendor=each.vendor,
                serial=each.serial,
                memory_bytes=each.memory_bytes,
            )
            for each in identity.devices
        ],
        leases=identity.leases,
    )


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
