"""The ``resources`` of a job file as the wire has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gridlease.type.v1 import job_pb2 as types
from gridlease.type.v1 import resources_pb2
from gridlease_kernel.faults import Invalid
from gridlease_kernel.resources import AcceleratorAsk, check_count, parse_accelerator, parse_chips
from gridlease_kernel.units import (
    Span,
    parse_cores,
    parse_count,
    parse_range,
    parse_size,
)

from gridlease_sdk import jobvalues
from gridlease_sdk.jobvalues import plain, wrong_type

RESOURCE_ALIASES: Final = {
    "cpus": "cpu",
    "disk_size": "disk",
    "gpus": "gpu",
    "accelerators": "gpu",
    "accelerator": "gpu",
}
_CHOICES: Final = ("any_of", "ordered")
_MOST_CHOICES: Final = 9
_GPU_KEYS: Final = ("name", "vendor", "memory", "count")
_LEAST_CPU_MILLI: Final = 10
_LEAST_MEMORY_BYTES: Final = 16 << 20
_LEAST_DISK_BYTES: Final = 1 << 20


def set_resources(spec: types.JobSpec, value: Any) -> None:
    """Put what the key ``resources`` says into ``spec``.

    Raises:
        Invalid: what is wrong in it, with the key.
    """
    if not isinstance(value, Mapping):
        raise wrong_type("resources", "a mapping of cpu, memory, disk and gpu", value)
    known = ("cpu", "memory", "disk", "gpu", *_CHOICES)
    keys = jobvalues.known_keys(value, known, RESOURCE_ALIASES, "resources.")
    said = [key for key in ("gpu", *_CHOICES) if key in keys]
    if len(said) > 1:
        raise Invalid(
            f"{' and '.join(said)} both say which devices the job wants.",
            reason="DEVICES_CONTRADICT",
            field=f"resources.{said[1]}",
            remedy="Keep one: gpu for one kind, any_of or ordered for a list of kinds.",
        )
    for key, item in keys.items():
        if key in _CHOICES:
            _set_choices(spec.resources, key, item)
        else:
            put(spec.resources, key, item)


def put(request: resources_pb2.ResourceRequest, key: str, value: Any) -> None:
    """One of cpu, memory, disk and gpu.

    Raises:
        Invalid: what is wrong in it, with the key.
    """
    field = f"resources.{key}"
    if key == "gpu":
        _set_gpu(request.accelerator, _gpu(value, field))
        return
    targets: dict[str, tuple[resources_pb2.Int64Range, Callable[[str, str], int], int]] = {
        "cpu": (request.cpu_milli, parse_cores, _LEAST_CPU_MILLI),
        "memory": (request.memory_bytes, _parse_gigabytes, _LEAST_MEMORY_BYTES),
        "disk": (request.disk_bytes, _parse_gigabytes, _LEAST_DISK_BYTES),
    }
    target, parse, lowest = targets[key]
    _set(target, parse_range(plain(value, field), field, parse, lowest=lowest))


def _set_choices(request: resources_pb2.ResourceRequest, key: str, value: Any) -> None:
    """A list of accelerators: the first, then those that would do as well."""
    field = f"resources.{key}"
    if not isinstance(value, list) or not value:
        raise wrong_type(field, "a list of accelerators, such as ['H100:8', 'A100:80GB:8']", value)
    if len(value) > _MOST_CHOICES:
        raise Invalid(
            f"{field} has {len(value)} entries; at most {_MOST_CHOICES} are looked at.",
            reason="TOO_MANY_CHOICES",
            field=field,
            remedy="Keep the best of them.",
        )
    _set_gpu(request.accelerator, _gpu(value[0], f"{field}[0]"))
    for at, item in enumerate(value[1:], 1):
        _set_gpu(request.alternatives.add(), _gpu(item, f"{field}[{at}]"))
    request.alternatives_ordered = key == "ordered"


def _parse_gigabytes(text: str, field: str) -> int:
    """A bare number is gigabytes, as in dstack and SkyPilot."""
    bare = text.strip().replace(".", "", 1).isdecimal()
    return parse_size(f"{text}GB" if bare else text, field)


def _gpu(value: Any, field: str) -> AcceleratorAsk:
    if isinstance(value, list):
        names = ",".join(jobvalues.texts(value, field))
        return parse_accelerator(names, field)
    if not isinstance(value, Mapping):
        return parse_accelerator(plain(value, field), field)
    if len(value) == 1 and not set(value) & set(_GPU_KEYS):
        # SkyPilot's {A100: 8}
        [(name, count)] = value.items()
        return parse_accelerator(f"{plain(name, field)}:{plain(count, field)}", field)
    keys = jobvalues.known_keys(value, _GPU_KEYS, {}, f"{field}.")
    names = ",".join(jobvalues.texts(keys["name"], f"{field}.name")) if "name" in keys else ""
    count = plain(keys.get("count", 1), f"{field}.count")
    memory = None
    if "memory" in keys:
        words = plain(keys["memory"], f"{field}.memory")
        memory = parse_range(words, f"{field}.memory", _parse_gigabytes)
    return AcceleratorAsk(
        chips=parse_chips(names, f"{field}.name"),
        vendor=jobvalues.text(keys.get("vendor", ""), f"{field}.vendor").lower(),
        memory_bytes=memory,
        count=check_count(
            parse_range(count, f"{field}.count", parse_count, lowest=1), f"{field}.count"
        ),
    )


def _set_gpu(request: resources_pb2.AcceleratorRequest, ask: AcceleratorAsk) -> None:
    request.chips.extend(ask.chips)
    request.vendor = ask.vendor
    if ask.memory_bytes is not None:
        _set(request.memory_bytes, ask.memory_bytes)
    _set(request.count, ask.count)


def _set(target: resources_pb2.Int64Range, span: Span) -> None:
    target.min, target.max = span.low, span.high
