"""Measures one GPU: matrix multiplication in fp32, its memory's bandwidth, and both against fp64.

A program of its own, as ``cuda_wipe`` is and for the same reasons:
``cuda_certify.py PACKAGES LIBRARY CUBLAS SIZE``. One line of JSON is the answer.

Source: cuBLAS and CUDA driver API references; functions by their versioned names there.
"""

from __future__ import annotations

import array
import ctypes
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

_TURNS = 16
_SAMPLES = 32
_BLOCK = 4099  # random values, repeated all over a matrix; a prime, so that no two rows are alike
_BOUND = 1e-4  # of the sum of absolute products: fp32's own rounding stays far below
_COLUMN_MAJOR = 0  # CUBLAS_OP_N


def measure(driver: Any, cublas: str, size: int) -> dict[str, Any]:
    """What it does, in 10^9 operations and 10^6 bytes a second, and whether it does it right."""
    driver.open()
    try:
        pieces = [driver.allocate(size * size * 4) for _ in range(3)]
        if None in pieces:
            return {"trouble": "too little memory to measure"}
        left, right = _matrix(size, 1), _matrix(size, 2)
        for address, values in zip(pieces, (left, right), strict=False):
            driver.write(address, values.tobytes())
        multiply = _gemm(cublas, size, *pieces)
        gflops = 2 * size**3 * _TURNS / _seconds(driver, multiply) / 1e9
        moved = 2 * size * size * 4 * _TURNS
        product = array.array("f", driver.read(pieces[2], size * size * 4))
        correct = _agrees(left, right, product, size)
        speed = moved / _seconds(driver, lambda: driver.copy(pieces[2], pieces[0], size * size * 4))
        return {"gflops": round(gflops), "memory_mbps": round(speed / 1e6), "correct": correct}
    finally:
        driver.close()


def _matrix(size: int, seed: int) -> array.array[float]:
    chance = random.Random(seed)  # noqa: S311 - values to multiply
    block = array.array("f", (chance.uniform(-1, 1) for _ in range(_BLOCK)))
    return (block * (size * size // _BLOCK + 1))[: size * size]


def _gemm(cublas: str, size: int, *pieces: int) -> Callable[[], None]:
    library = ctypes.CDLL(cublas)
    handle, one, nothing = ctypes.c_void_p(), ctypes.c_float(1), ctypes.c_float(0)
    if library.cublasCreate_v2(ctypes.byref(handle)):
        raise OSError("cublasCreate_v2 failed")
    a, b, c = (ctypes.c_void_p(piece) for piece in pieces)
    n, op = ctypes.c_int(size), ctypes.c_int(_COLUMN_MAJOR)

    def multiply() -> None:
        code = library.cublasSgemm_v2(
            handle, op, op, n, n, n, ctypes.byref(one), a, n, b, n, ctypes.byref(nothing), c, n
        )
        if code:
            raise OSError(f"cublasSgemm_v2 answered {code}")

    return multiply


def _seconds(driver: Any, work: Callable[[], None]) -> float:
    work()
    driver.wait()
    began = time.perf_counter()
    for _ in range(_TURNS):
        work()
    driver.wait()
    return max(1e-9, time.perf_counter() - began)


def _agrees(
    left: array.array[float], right: array.array[float], product: array.array[float], size: int
) -> bool:
    """Samples of the product against Python's floats, which are fp64; matrices by columns."""
    chance = random.Random(3)  # noqa: S311 - where to look
    for _ in range(_SAMPLES):
        i, j = chance.randrange(size), chance.randrange(size)
        parts = [left[k * size + i] * right[j * size + k] for k in range(size)]
        if abs(product[j * size + i] - sum(parts)) > _BOUND * sum(map(abs, parts)):
            return False
    return True


def main(argv: list[str]) -> int:
    """The answer on stdout."""
    sys.path.append(argv[1])
    from gridlease_agent.devices import cuda_wipe  # noqa: PLC0415 - by a path that is told

    try:
        answer = measure(cuda_wipe.Driver(argv[2]), argv[3], int(argv[4]))
    except (cuda_wipe.CudaError, OSError, AttributeError) as trouble:
        answer = {"trouble": str(trouble)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
