"""The keys of a job file about where and when a job runs, and how it may be interrupted.

span, latency, software, network, low_carbon, deferrable, batch_size, autoscale, reservation,
min_runtime, on_preemption, expected_duration. Every refusal names the key and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import parse_count, parse_duration, parse_range

from gridlease_sdk.jobvalues import choice, integer, known_keys, plain, text, texts, wrong_type

_SPANS: Final = {
    "any": types.SPAN_ANY,
    "host": types.SPAN_HOST,
    "rail": types.SPAN_RAIL,
    "rack": types.SPAN_RACK,
    "site": types.SPAN_SITE,
}
_CLASSES: Final = {
    "standard": types.NETWORK_CLASS_STANDARD,
    "critical": types.NETWORK_CLASS_CRITICAL,
    "bulk": types.NETWORK_CLASS_BULK,
}
_EGRESS: Final = {
    "none": types.EGRESS_NONE,
    "peers": types.EGRESS_PEERS,
    "listed": types.EGRESS_LISTED,
    "public": types.EGRESS_PUBLIC,
}
_ADDRESS: Final = re.compile(r"[0-9a-fA-F.:\[\]]+(/[0-9]{1,3})?(:[0-9]{1,5})?")
_ON_PREEMPTION: Final = {
    "requeue": types.PREEMPTION_POLICY_REQUEUE,
    "fail": types.PREEMPTION_POLICY_FAIL,
}
_TENANCIES: Final = {
    "shared": types.TENANCY_SHARED,
    "exclusive-device": types.TENANCY_EXCLUSIVE_DEVICE,
    "exclusive-host": types.TENANCY_EXCLUSIVE_HOST,
}
_TOOLKITS: Final = ("cuda", "rocm", "jetpack")
_MICROS: Final = re.compile(r"(\d+)\s*(us|µs)")
_SPEED: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g|t)?(?:bit/s|bit|bps|b/s)?", re.IGNORECASE)
_MBPS_MILLI: Final = {"k": 1, "m": 1_000, "g": 1_000_000, "t": 1_000_000_000}
_MOST: Final = 1_024


def parse_micros(words: str, field: str) -> int:
    """A short span in microseconds: "500us", or a duration such as "20ms".

    Raises:
        Invalid: it is none.
    """
    found = _MICROS.fullmatch(words.strip())
    return int(found.group(1)) if found else parse_duration(words, field) * 1_000


def parse_mbps(words: str, field: str) -> int:
    """A speed in Mbit/s: "500", "500Mbit" or "10Gbit/s".

    Raises:
        Invalid: BAD_SPEED.
    """
    found = _SPEED.fullmatch(words.strip())
    if found is None:
        raise Invalid(
            f"{words[:40]!r} is no speed.",
            reason="BAD_SPEED",
            field=field,
            remedy='Write it like "500Mbit" or "10Gbit"; a bare number is Mbit/s.',
        )
    whole, _, part = found.group(1).partition(".")
    micro = int(whole) * 1_000_000 + int((part + "000000")[:6])
    return micro * _MBPS_MILLI[(found.group(2) or "m").lower()] // 1_000_000_000


def set_span(spec: types.JobSpec, value: Any) -> None:
    """How near to each other the tasks must be."""
    spec.span = types.Span.ValueType(choice(value, "span", _SPANS))


def set_latency(spec: types.JobSpec, value: Any) -> None:
    """The time in which one answer is wanted."""
    spec.latency_target_us = parse_micros(plain(value, "latency"), "latency")


def set_software(spec: types.JobSpec, value: Any) -> None:
    """``{cuda: "12.4", targets: [sm_80], compat: yes}``."""
    if not isinstance(value, Mapping):
        raise wrong_type("software", "a mapping, such as {cuda: '12.4'}", value)
    keys = known_keys(value, (*_TOOLKITS, "targets", "compat"), {}, "software.")
    named = [name for name in _TOOLKITS if name in keys]
    if len(named) != 1:
        raise Invalid(
            "software names one toolkit.",
            reason="TOOLKIT_MISSING" if not named else "TOOLKITS_CONTRADICT",
            field="software",
            remedy="Give cuda, rocm or jetpack with its version: software: {cuda: 12.4}.",
        )
    spec.software.toolkit = named[0]
    spec.software.version = plain(keys[named[0]], f"software.{named[0]}")
    spec.software.targets.extend(texts(keys.get("targets", []), "software.targets"))
    spec.software.carries_compat = _yes(keys.get("compat", False), "software.compat")


def set_network(spec: types.JobSpec, value: Any) -> None:
    """``{guaranteed: 10Gbit, class: critical, latency: 200us, egress: peers}``."""
    if not isinstance(value, Mapping):
        raise wrong_type("network", "a mapping of guaranteed, class, latency and egress", value)
    keys = known_keys(value, ("guaranteed", "class", "latency", "egress", "egress_to"),
                      {"bandwidth": "guaranteed"}, "network.")  # fmt: skip
    network = spec.network
    network.SetInParent()
    if "guaranteed" in keys:
        words = plain(keys["guaranteed"], "network.guaranteed")
        network.guaranteed_mbps = parse_mbps(words, "network.guaranteed")
    if "class" in keys:
        found = choice(keys["class"], "network.class", _CLASSES)
        network.network_class = types.NetworkClass.ValueType(found)
    if "latency" in keys:
        words = plain(keys["latency"], "network.latency")
        network.latency_us = parse_micros(words, "network.latency")
    _set_egress(network, keys)


def _set_egress(network: types.NetworkRequest, keys: Mapping[str, Any]) -> None:
    """Whom it may call; addresses alone mean listed."""
    listed = texts(keys.get("egress_to", []), "network.egress_to")
    if "egress" in keys:
        network.egress = types.Egress.ValueType(choice(keys["egress"], "network.egress", _EGRESS))
    elif listed:
        network.egress = types.EGRESS_LISTED
    if (network.egress == types.EGRESS_LISTED) != bool(listed):
        raise Invalid(
            "Addresses belong to listed egress, and listed egress needs some.",
            reason="EGRESS_CONTRADICTS",
            field="network.egress_to",
            remedy="Write network: {egress: listed, egress_to: ['203.0.113.7:443']}.",
        )
    for place, words in enumerate(listed):
        if not _ADDRESS.fullmatch(words) or not 7 <= len(words) <= 64:
            raise Invalid(
                f"{words[:40]!r} is no address; names are not looked up.",
                reason="BAD_ADDRESS",
                field=f"network.egress_to[{place}]",
                remedy="Write an address or a network, and perhaps a port: 198.51.100.0/24:443.",
            )
    network.egress_to.extend(listed)


def set_low_carbon(spec: types.JobSpec, value: Any) -> None:
    """Grams of CO2 count as much as money."""
    spec.low_carbon = _yes(value, "low_carbon")


def set_batch_size(spec: types.JobSpec, value: Any) -> None:
    """Global batch sizes at which it may train, such as ``128..4096``."""
    found = parse_range(plain(value, "batch_size"), "batch_size", parse_count, lowest=1)
    spec.batch_size.min, spec.batch_size.max = found.low, found.high


def set_autoscale(spec: types.JobSpec, value: Any) -> None:
    """``{min: 0, max: 8, in_flight: 4, idle_after: 5m}``."""
    if not isinstance(value, Mapping):
        raise wrong_type("autoscale", "a mapping of min, max, in_flight and idle_after", value)
    keys = known_keys(value, ("min", "max", "in_flight", "idle_after"),
                      {"target": "in_flight"}, "autoscale.")  # fmt: skip
    for key in ("max", "in_flight"):
        if key not in keys:
            raise Invalid(
                f"autoscale.{key} is missing.",
                reason="KEY_MISSING",
                field=f"autoscale.{key}",
                remedy="Write autoscale: {min: 0, max: 8, in_flight: 4}.",
            )
    scale = spec.autoscale
    scale.min_replicas = integer(keys.get("min", 0), "autoscale.min", _MOST)
    scale.max_replicas = integer(keys["max"], "autoscale.max", _MOST)
    scale.target_in_flight = integer(keys["in_flight"], "autoscale.in_flight", 100_000)
    if "idle_after" in keys:
        words = plain(keys["idle_after"], "autoscale.idle_after")
        scale.idle_after_ms = parse_duration(words, "autoscale.idle_after")


def set_reservation(spec: types.JobSpec, value: Any) -> None:
    """A reservation of the project, whole or by its last part."""
    name = text(value, "reservation")
    spec.reservation = name if not name or "/" in name else f"reservations/{name}"


def set_on_preemption(spec: types.JobSpec, value: Any) -> None:
    """What becomes of it when another job takes its place."""
    found = choice(value, "on_preemption", _ON_PREEMPTION)
    spec.preemption_policy = types.PreemptionPolicy.ValueType(found)


def set_tenancy(spec: types.JobSpec, value: Any) -> None:
    """Who else may use what a task holds: shared, exclusive-device or exclusive-host."""
    spec.tenancy = types.Tenancy.ValueType(choice(value, "tenancy", _TENANCIES))


def _yes(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(field, "yes or no", value)
    return value


SETTERS: Final[Mapping[str, Callable[[types.JobSpec, Any], None]]] = {
    "span": set_span,
    "latency": set_latency,
    "software": set_software,
    "network": set_network,
    "low_carbon": set_low_carbon,
    "batch_size": set_batch_size,
    "autoscale": set_autoscale,
    "reservation": set_reservation,
    "on_preemption": set_on_preemption,
    "tenancy": set_tenancy,
}
