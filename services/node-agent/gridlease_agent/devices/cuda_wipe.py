"""Fills all free memory of one GPU with a pattern, reads a sample back, and leaves zeroes.

A program of its own (``python -I -S cuda_wipe.py LIBRARY``): a CUDA context costs hundreds of
megabytes and does not survive a fork, so the agent never has one. The GPU is the only one in
CUDA_VISIBLE_DEVICES. One line of JSON is the answer; whether it is enough, the caller decides.
Standard library only.

Source: CUDA driver API reference, cuda.h; the functions by their versioned names there.
"""

from __future__ import annotations

import ctypes
import json
import random
import secrets
import sys
import time
from typing import Any

_GIB = 1 << 30
_LEAST = 1 << 21  # the driver gives memory in pages of 2 MiB
_SAMPLE = 4096
_SAMPLES = 64  # of each piece, beside its first and its last page
_UUID_BYTES = 16


class CudaError(Exception):
    """A call that the driver refused."""


class Driver:
    """One GPU's memory by the driver's own library."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if count.value != 1:
            raise CudaError(f"{count.value} devices are visible, where one was asked for")
        self._call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(0))

    def uuid(self) -> str:
        """In hexadecimal, without the prefix; a MIG instance's own."""
        raw = (ctypes.c_ubyte * _UUID_BYTES)()
        self._call("cuDeviceGetUuid_v2", ctypes.byref(raw), self._device)
        return bytes(raw).hex()

    def open(self) -> None:
        """A context, which all that follows needs."""
        self._call("cuCtxCreate_v2", ctypes.byref(self._context), ctypes.c_uint(0), self._device)

    def close(self) -> None:
        """Let the context go."""
        self._call("cuCtxDestroy_v2", self._context)

    def memory(self) -> tuple[int, int]:
        """Free and in all, in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int | None:
        """The address of so many bytes, None where there are not."""
        address = ctypes.c_uint64()
        code = self._try("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return None if code else address.value

    def release(self, address: int) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def fill(self, address: int, size: int, word: int) -> None:
        """``word`` (32 bits) all over it."""
        self._call(
            "cuMemsetD32_v2",
            ctypes.c_uint64(address),
            ctypes.c_uint(word),
            ctypes.c_size_t(size // 4),
        )

    def wait(self) -> None:
        """Until all is done."""
        self._call("cuCtxSynchronize")

    def read(self, address: int, size: int) -> bytes:
        into = ctypes.create_string_buffer(size)
        self._call("cuMemcpyDtoH_v2", into, ctypes.c_uint64(address), ctypes.c_size_t(size))
        return into.raw

    def write(self, address: int, content: bytes) -> None:
        size = ctypes.c_size_t(len(content))
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), content, size)

    def copy(self, target: int, source: int, size: int) -> None:
        """Within the device."""
        places = ctypes.c_uint64(target), ctypes.c_uint64(source)
        self._call("cuMemcpyDtoD_v2", *places, ctypes.c_size_t(size))

    def _try(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._library, name)(*arguments))

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._try(name, *arguments)
        if code:
            raise CudaError(f"{name} answered {code}")


def wipe(driver: Driver, word: int) -> dict[str, Any]:
    """All that can be had is filled, read back, and filled with zeroes."""
    driver.open()
    try:
        free, total = driver.memory()
        pieces = _all(driver)
        began_ns = time.monotonic_ns()
        wrong = _written(driver, pieces, word)
        fill_ns = time.monotonic_ns() - began_ns
        wrong += _written(driver, pieces, 0)
        for address, _size in pieces:
            driver.release(address)
    finally:
        driver.close()
    filled = sum(size for _address, size in pieces)
    samples = 2 * len(pieces) * (_SAMPLES + 2)
    return {
        "total": total, "free": free, "filled": filled, "wrong": wrong, "samples": samples,
        "ns": fill_ns, "uuid": driver.uuid(),
    }  # fmt: skip


def _all(driver: Driver) -> list[tuple[int, int]]:
    """Every piece of memory that the driver gives, the large ones first."""
    pieces, size = [], _GIB
    while size >= _LEAST:
        address = driver.allocate(size)
        if address is None:
            size //= 2
        else:
            pieces.append((address, size))
    return pieces


def _written(driver: Driver, pieces: list[tuple[int, int]], word: int) -> int:
    """Fills them; how many samples were not what was written."""
    for address, size in pieces:
        driver.fill(address, size, word)
    driver.wait()
    expected = word.to_bytes(4, "little") * (_SAMPLE // 4)
    chance = random.Random(secrets.randbits(64))  # noqa: S311 - where to look, not a key
    wrong = 0
    for address, size in pieces:
        last = size - _SAMPLE
        places = [0, last, *(chance.randrange(0, last, 4) for _ in range(_SAMPLES))]
        wrong += sum(driver.read(address + place, _SAMPLE) != expected for place in places)
    return wrong


def main(argv: list[str]) -> int:
    """The answer on stdout."""
    try:
        answer = wipe(Driver(argv[1]), secrets.randbits(32) | 1)
    except (CudaError, OSError, AttributeError) as trouble:
        answer = {"trouble": str(trouble)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
