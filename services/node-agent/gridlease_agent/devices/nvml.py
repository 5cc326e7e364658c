"""NVIDIA's management library by its standard name, asked through ctypes.

Only what is needed, each answer optional: an old driver lacks functions, a broken one fails them.
A value that was not had is None, never 0.

Source: NVML API reference, nvml.h; constants by their names there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_UUID_BYTES = 96
_NAME_BYTES = 96
_VERSION_BYTES = 80
_MOST_PARTS = 64  # of one GPU; today's have 7
_GPU = 0  # NVML_TEMPERATURE_GPU
_TOO_SMALL, _ABSENT = 7, 13  # NVML_ERROR_INSUFFICIENT_SIZE, NVML_ERROR_FUNCTION_NOT_FOUND
_UNCORRECTED, _AGGREGATE = 1, 1  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_AGGREGATE_ECC


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Pci(ctypes.Structure):
    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class _Attributes(ctypes.Structure):
    """nvmlDeviceAttributes_t, of nvmlDeviceGetAttributes_v2."""

    _fields_ = (
        *((f"count{k}", ctypes.c_uint) for k in range(8)),
        ("memory_mb", ctypes.c_ulonglong),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """A MIG instance: a compute instance of a GPU instance of its GPU."""

    uuid: str
    name: str
    memory_bytes: int
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """What one GPU is. ``divided``: it is in MIG mode, and its ``parts`` are used in its place."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    minor: int
    bus: str
    divided: bool = False
    parts: tuple[Part, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Sample:
    """What one GPU says of itself now; None = it did not say."""

    utilisation_percent: int | None
    memory_used_bytes: int | None
    power_mw: int | None
    energy_mj: int | None
    temperature_c: int | None
    ecc_uncorrected: int | None


class Nvml:
    """One open library. ``close`` ends it."""

    def __init__(self, library: Any) -> None:
        self._library = library

    @classmethod
    def open(cls, name: str = LIBRARY) -> Nvml | None:
        """The library, or None where it is absent or finds no driver."""
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return None
        nvml = cls(library)
        return nvml if nvml._call("nvmlInit_v2") else None

    def close(self) -> None:
        """Let it go."""
        self._call("nvmlShutdown")

    def driver(self) -> str:
        """The driver's version; "" where it does not say."""
        return self._text("nvmlSystemGetDriverVersion", _VERSION_BYTES)

    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU that answers."""
        count = ctypes.c_uint()
        if not self._call("nvmlDeviceGetCount_v2", ctypes.byref(count)):
            return ()
        found = (self._gpu(index) for index in range(count.value))
        return tuple(gpu for gpu in found if gpu is not None)

    def sample(self, index: int, part: str = "") -> Sample:
        """One GPU's values now, or those of a part of one, by its UUID."""
        handle = self._by_uuid(part) if part else self._handle(index)
        if handle is None:
            return Sample(None, None, None, None, None, None)
        use, memory = _Utilization(), _Memory()
        busy = self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(use))
        held = self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        return Sample(
            utilisation_percent=use.gpu if busy else None,
            memory_used_bytes=memory.used if held else None,
            power_mw=self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint, handle),
            energy_mj=self._number(
                "nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, handle
            ),
            temperature_c=self._number("nvmlDeviceGetTemperature", ctypes.c_uint, handle, _GPU),
            ecc_uncorrected=self._number(
                "nvmlDeviceGetTotalEccErrors", ctypes.c_ulonglong, handle, _UNCORRECTED, _AGGREGATE
            ),
        )

    def processes(self, uuid: str) -> int | None:
        """How many processes use a GPU, whatever for; None = the driver does not say."""
        handle = self._by_uuid(uuid)
        if handle is None:
            return None
        counts = [self._users(handle, kind) for kind in ("Compute", "Graphics")]
        known = [count for count in counts if count is not None]
        return sum(known) if counts[0] is not None else None

    def _users(self, handle: ctypes.c_void_p, kind: str) -> int | None:
        for version in ("_v3", "_v2", ""):
            count = ctypes.c_uint(0)
            name = f"nvmlDeviceGet{kind}RunningProcesses{version}"
            code = self._code(name, handle, ctypes.byref(count), None)
            if code in (0, _TOO_SMALL):  # too small: there are some, and no room was given
                return count.value
        return None

    def _gpu(self, index: int) -> Gpu | None:
        handle = self._handle(index)
        if handle is None:
            return None
        memory, pci = _Memory(), _Pci()
        sized = self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        placed = self._call("nvmlDeviceGetPciInfo_v3", handle, ctypes.byref(pci))
        minor = self._number("nvmlDeviceGetMinorNumber", ctypes.c_uint, handle)
        return Gpu(
            index=index,
            uuid=self._text("nvmlDeviceGetUUID", _UUID_BYTES, handle),
            name=self._text("nvmlDeviceGetName", _NAME_BYTES, handle),
            memory_bytes=memory.total if sized else 0,
            minor=index if minor is None else minor,
            bus=pci.bus_id.decode("ascii", "replace") if placed else "",
            divided=self._divided(handle),
            parts=tuple(self._parts(handle)),
        )

    def _divided(self, handle: ctypes.c_void_p) -> bool:
        now, pending = ctypes.c_uint(), ctypes.c_uint()
        found = self._call("nvmlDeviceGetMigMode", handle, ctypes.byref(now), ctypes.byref(pending))
        return found and now.value == 1  # NVML_DEVICE_MIG_ENABLE

    def _parts(self, handle: ctypes.c_void_p) -> Iterator[Part]:
        """Those there are; numbers without an instance are passed over."""
        if not self._divided(handle):
            return
        most = self._number("nvmlDeviceGetMaxMigDeviceCount", ctypes.c_uint, handle) or 0
        for index in range(min(most, _MOST_PARTS)):
            part = ctypes.c_void_p()
            found = self._call(
                "nvmlDeviceGetMigDeviceHandleByIndex",
                handle,
                ctypes.c_uint(index),
                ctypes.byref(part),
            )
            if found and (one := self._part(part)) is not None:
                yield one

    def _part(self, handle: ctypes.c_void_p) -> Part | None:
        """None for one that does not say which it is: it could not be handed over alone."""
        uuid = self._text("nvmlDeviceGetUUID", _UUID_BYTES, handle)
        gpu = self._number("nvmlDeviceGetGpuInstanceId", ctypes.c_uint, handle)
        compute = self._number("nvmlDeviceGetComputeInstanceId", ctypes.c_uint, handle)
        if not uuid or gpu is None or compute is None:
            return None
        facts = _Attributes()
        sized = self._call("nvmlDeviceGetAttributes_v2", handle, ctypes.byref(facts))
        name = self._text("nvmlDeviceGetName", _NAME_BYTES, handle)
        return Part(uuid, name, facts.memory_mb << 20 if sized else 0, gpu, compute)

    def _by_uuid(self, uuid: str) -> ctypes.c_void_p | None:
        handle = ctypes.c_void_p()
        found = self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(handle))
        return handle if found else None

    def _handle(self, index: int) -> ctypes.c_void_p | None:
        handle = ctypes.c_void_p()
        found = self._call(
            "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)
        )
        return handle if found else None

    def _text(self, name: str, size: int, *head: object) -> str:
        buffer = ctypes.create_string_buffer(size)
        found = self._call(name, *head, buffer, ctypes.c_uint(size))
        return buffer.value.decode("utf-8", "replace") if found else ""

    def _number(
        self, name: str, kind: Callable[[], Any], handle: ctypes.c_void_p, *words: int
    ) -> int | None:
        answer = kind()
        found = self._call(name, handle, *map(ctypes.c_uint, words), ctypes.byref(answer))
        return int(answer.value) if found else None

    def _call(self, name: str, *arguments: object) -> bool:
        """Did it answer? An absent function is a driver too old to know it."""
        return self._code(name, *arguments) == 0

    def _code(self, name: str, *arguments: object) -> int:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            return _ABSENT
        return int(function(*arguments))
