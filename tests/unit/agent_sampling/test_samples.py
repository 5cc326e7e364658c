"""Readings below made-up roots: values, and what each is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from gridlease_agent.adapters.metrics_page import MetricsPage, page
from gridlease_agent.devices.discover import discover
from gridlease_agent.devices.family import load
from gridlease_agent.domain.health import Vitals, Watched, judged
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.sampling.devices import DeviceSampler, Look, by_files
from gridlease_agent.sampling.host import HostSampler
from gridlease_agent.sampling.kept import KeptFiles
from gridlease_agent.sampling.leases import LeaseSampler
from gridlease_mesh.telemetry_sample import (
    DeviceIdentity,
    NodeIdentity,
    Quality,
    Sample,
    quality_of,
    sample,
)

from tests.unit.agent_devices.hosts import grow

S = 1_000_000_000


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


_HOST = {
    "proc/stat": "cpu  100 0 50 1000 20 0 0 0 0 0\ncpu0 1 1 1 1\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n",
    "proc/net/dev": (
        "Inter-| Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n"
        "  eth0: 700 0 0 0 0 0 0 0 300 0 0 0 0 0 0 0\n"
    ),
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "5",
}


def test_the_host_and_its_power_by_the_slope_of_energy(tmp_path: Path) -> None:
    sampler = HostSampler(KeptFiles(_tree(tmp_path, _HOST)), str(tmp_path))
    first = sampler.read(0)
    assert (first.cpu_ns, first.memory_used_bytes) == (150 * 10_000_000, 600 * 1024)
    assert (first.network_received_bytes, first.network_sent_bytes) == (700, 300)
    assert quality_of(first, "power_mw") is Quality.ABSENT
    assert quality_of(first, "temperature_milli_c") is Quality.ABSENT
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("31000000")
    second = sampler.read(2 * S)
    assert (second.power_mw, quality_of(second, "power_mw")) == (15_000, Quality.DERIVED)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("7")  # it wrapped
    assert quality_of(sampler.read(3 * S), "power_mw") is Quality.ABSENT


_V1 = {
    "sys/fs/cgroup/memory/gridlease/l1/memory.usage_in_bytes": "4096",
    "sys/fs/cgroup/memory/gridlease/l1/memory.max_usage_in_bytes": "8192",
    "sys/fs/cgroup/cpuacct/gridlease/l1/cpuacct.usage": "77",
    "sys/fs/cgroup/pids/gridlease/l1/pids.current": "3",
    "sys/fs/cgroup/blkio/gridlease/l1/blkio.throttle.io_service_bytes": (
        "8:0 Read 100\n8:0 Write 200\n8:0 Total 300\n8:16 Read 1\nTotal 301\n"
    ),
}
_V2 = {
    "sys/fs/cgroup/cgroup.controllers": "cpu",
    "sys/fs/cgroup/gridlease/l1/cpu.stat": "usage_usec 5\nuser_usec 4\n",
    "sys/fs/cgroup/gridlease/l1/memory.current": "4096",
    "sys/fs/cgroup/gridlease/l1/memory.peak": "8192",
    "sys/fs/cgroup/gridlease/l1/io.stat": (
        "8:0 rbytes=100 wbytes=200 rios=1\n8:16 rbytes=1 wbytes=0\n"
    ),
    "sys/fs/cgroup/gridlease/l1/pids.current": "3",
}  # fmt: skip


@pytest.mark.parametrize(("files", "cpu_ns"), [(_V1, 77), (_V2, 5000)], ids=["v1", "v2"])
def test_leases_by_both_kinds_of_cgroups(
    tmp_path: Path, files: dict[str, str], cpu_ns: int
) -> None:
    kept = KeptFiles(_tree(tmp_path, files))
    sampler = LeaseSampler(kept)
    found = sampler.read({"gone": "", "lost": "gridlease/lost", "l1": "gridlease/l1"})
    assert found.cpu_ns == (0, 0, cpu_ns)
    assert (found.memory_used_bytes[2], found.memory_peak_bytes[2]) == (4096, 8192)
    assert (found.read_bytes[2], found.written_bytes[2], found.processes[2]) == (101, 200, 3)
    assert quality_of(found, "cpu_ns", 0) is Quality.ABSENT
    assert quality_of(found, "cpu_ns", 2) is Quality.MEASURED
    sampler.read({})
    assert not [name for name in kept._open if "l1" in name], "files of gone leases are let go"


def _sampler(root: Path) -> DeviceSampler:
    families = {(x.kind, x.family): x for x in load()}
    found = discover(root, listers={})

    def look(device: DeviceFacts) -> Look:
        return by_files(families[device.kind, device.family], root)

    return DeviceSampler(found, look)


def test_an_amd_device_by_its_files(tmp_path: Path) -> None:
    root = _tree(
        grow(tmp_path, "amd"),
        {
            "sys/class/drm/renderD128/device/gpu_busy_percent": "42",
            "sys/class/drm/renderD128/device/mem_info_vram_used": "1024",
            "sys/class/drm/renderD128/device/hwmon/hwmon3/power1_average": "300000000",
            "sys/class/drm/renderD128/device/hwmon/hwmon3/temp1_input": "61000",
        },
    )
    sampler = _sampler(root)
    first = sampler.read(0)
    assert (first.utilisation_milli, first.power_mw) == ((420,), (300_000,))
    assert (first.temperature_milli_c, first.memory_used_bytes) == ((61_000,), (1024,))
    second = sampler.read(10 * S)
    assert second.energy_mj == (3_000_000,)
    assert quality_of(second, "energy_mj") is Quality.DERIVED
    (root / "sys/class/drm/renderD128/device/gpu_busy_percent").unlink()
    third = sampler.read(11 * S)
    assert third.utilisation_milli == (420,)
    assert quality_of(third, "utilisation_milli") is Quality.SUSPECT, "silent is not 0"


def test_a_jetson_by_its_power_monitor(tmp_path: Path) -> None:
    root = _tree(
        grow(tmp_path, "jetson"),
        {
            "sys/class/hwmon/hwmon3/in1_input": "5000",
            "sys/class/hwmon/hwmon3/curr1_input": "2000",
            "sys/class/devfreq/17000000.gpu/device/load": "333",
        },
    )
    found = _sampler(root).read(0)
    assert (found.power_mw, found.utilisation_milli) == ((10_000,), (333,))


_WORK = Vitals(utilisation_milli=950, power_mw=300_000)


def _course(*vitals: Vitals, step_ns: int = S) -> Watched:
    state = Watched()
    for second, one in enumerate(vitals):
        state = judged(state, one, second * step_ns)
    return state


def test_zero_beside_high_power_is_suspect_and_never_taken_for_idle() -> None:
    rest = Vitals(utilisation_milli=0, power_mw=60_000)
    lying = Vitals(utilisation_milli=0, power_mw=300_000)
    assert _course(rest, _WORK).suspect == frozenset()
    assert _course(rest, lying).suspect == {"utilisation"}
    assert _course(rest, Vitals(utilisation_milli=0, power_mw=0)).suspect == {"power"}


def test_what_stays_suspect_is_doubted_until_it_has_been_well() -> None:
    rest = Vitals(utilisation_milli=0, power_mw=60_000)
    silent = Vitals(power_mw=60_000)
    assert _course(rest, _WORK, *[silent] * 300).doubt == ""
    doubted = _course(rest, _WORK, *[silent] * 301)
    assert "does not say what it does" in doubted.doubt
    assert not doubted.fault, "no fault: it ends by itself"
    again = judged(doubted, rest, 400 * S)
    assert again.doubt, "one good reading is no health"
    again = judged(again, silent, 430 * S)
    assert judged(again, rest, 461 * S).doubt
    assert not judged(judged(again, rest, 461 * S), rest, 521 * S).doubt
    assert _course(rest, *[silent, rest] * 400).doubt == "", "now and then is not lasting"


def test_power_that_cannot_be_is_doubted() -> None:
    rest = Vitals(utilisation_milli=0, power_mw=60_000)
    for odd in (
        Vitals(utilisation_milli=0, power_mw=0),
        Vitals(utilisation_milli=500, power_mw=3_000_000),
        Vitals(utilisation_milli=1_000, power_mw=61_000),
        Vitals(utilisation_milli=0),
    ):
        assert "power" in _course(rest, _WORK, *[odd] * 310).doubt, odd
    idle_context = Vitals(utilisation_milli=0, power_mw=120_000)
    assert _course(rest, _WORK, *[idle_context] * 400).suspect == {"utilisation"}
    assert _course(rest, _WORK, *[idle_context] * 400).doubt == "", "it is open and does nothing"
    lying = Vitals(utilisation_milli=0, power_mw=300_000)
    assert "beside much power" in _course(rest, _WORK, *[lying] * 310).doubt
    assert _course(rest, Vitals(power_mw=0), *[rest] * 400).doubt == "", "0 is no rest"
    assert _course(*[_WORK] * 400).doubt == "", "one that never rested is not at rest"
    assert _course(*[Vitals()] * 400).doubt == "", "who never told anything is not silent"


def test_errors_of_memory_and_heat_condemn_a_device_for_good() -> None:
    assert _course(Vitals(ecc_uncorrected=4), Vitals(ecc_uncorrected=4)).fault == ""
    worse = _course(Vitals(ecc_uncorrected=4), Vitals(ecc_uncorrected=6), Vitals())
    assert (worse.fault, worse.message) == ("ECC_UNCORRECTED", "2 uncorrected memory error(s)")
    hot, cool = Vitals(temperature_milli_c=96_000), Vitals(temperature_milli_c=60_000)
    assert _course(*[hot] * 59).fault == ""
    assert _course(*[hot] * 30, cool, *[hot] * 40).fault == ""
    assert _course(*[hot] * 62).fault == "OVERHEATED"


def _taken() -> Sample:
    device = DeviceIdentity('g"0', "A100-80GB", "nvidia")
    return sample(time_unix_ms=1, identity=NodeIdentity("h", "1", "b", (device,), ("l1",)))


def test_the_page_leaves_out_what_is_absent(tmp_path: Path) -> None:
    assert page(_taken()) == "\n"
    root = _tree(grow(tmp_path, "amd"), {"sys/class/drm/renderD128/device/gpu_busy_percent": "42"})
    full = _taken()._replace(devices=_sampler(root).read(0))
    text = page(full)
    expected = 'hw_gpu_utilization_ratio{hw_id="g\\"0",hw_name="A100-80GB",hw_vendor="nvidia",quality="measured"} 0.42'  # noqa: E501
    assert expected in text.splitlines()
    assert "# TYPE hw_gpu_utilization_ratio gauge" in text
    assert "hw_power_watts" not in text


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"404"),
    ],
)
async def test_the_page_is_served_on_the_loopback_interface(
    request_: bytes, status: bytes, unused_tcp_port_factory: Callable[[], int]
) -> None:
    metrics = MetricsPage()
    metrics.offer(_taken())
    port = unused_tcp_port_factory()
    server = await metrics.serve(port)
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.split()[1] == status
        writer.close()
