"""Samples as a busy node would take them."""

import random

from gridlease_mesh.telemetry_sample import (
    DeviceIdentity,
    DeviceReadings,
    HostReadings,
    LeaseReadings,
    NodeIdentity,
    Quality,
    sample,
)


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
