"""A sample is whole and in range, or refused with a reason."""

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_mesh.telemetry_sample import (
    MAX_VALUE,
    DeviceIdentity,
    DeviceReadings,
    HostReadings,
    LeaseReadings,
    NodeIdentity,
    Quality,
    quality_of,
    sample,
)

TWO = NodeIdentity("host", devices=(DeviceIdentity("gpu-0"), DeviceIdentity("gpu-1")))


def test_what_is_left_out_is_zero_and_absent():
    taken = sample(time_unix_ms=1, identity=TWO)
    assert taken.devices.power_mw == (0, 0)
    assert quality_of(taken.devices, "power_mw", 1) is Quality.ABSENT
    assert taken.host.cpu_ns == 0
    assert taken.leases.cpu_ns == ()


def test_the_quality_of_a_value_is_found():
    cells = bytearray([Quality.MEASURED] * 14)
    cells[2 * 2 + 1] = Quality.SUSPECT
    taken = sample(time_unix_ms=1, identity=TWO, devices=DeviceReadings(quality=bytes(cells)))
    assert quality_of(taken.devices, "power_mw", 1) is Quality.SUSPECT
    assert quality_of(taken.devices, "power_mw", 0) is Quality.MEASURED


@pytest.mark.parametrize(
    "parts",
    [
        {"devices": DeviceReadings(power_mw=(1,))},
        {"devices": DeviceReadings(power_mw=(1, MAX_VALUE + 1))},
        {"devices": DeviceReadings(power_mw=(1, -MAX_VALUE - 1))},
        {"host": HostReadings(cpu_ns=MAX_VALUE + 1)},
        {"leases": LeaseReadings(cpu_ns=(1,))},
        {"host": HostReadings(quality=b"\1")},
        {"host": HostReadings(quality=b"\x09" * 7)},
        {"time_unix_ms": -1},
        {"identity": NodeIdentity(leases=("x",) * 5000)},
        {"identity": NodeIdentity(devices=(DeviceIdentity("x"),) * 2000)},
    ],
)
def test_a_sample_that_does_not_fit_is_refused(parts):
    with pytest.raises(Invalid) as refused:
        sample(**{"time_unix_ms": 1, "identity": TWO} | parts)
    assert refused.value.reason == "BAD_SAMPLE"
    assert refused.value.remedy
