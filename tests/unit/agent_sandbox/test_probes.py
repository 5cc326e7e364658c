"""Probes over made-up roots, and emulated nodes."""

from __future__ import annotations

from pathlib import Path

from gridlease_agent.probes import cpu, disk, emulated, host, memory, table

GIB = 1 << 30


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_cpu_of_a_server_under_a_quota(tmp_path):
    info = "processor\t: 0\nmodel name\t: Fine CPU\n\nprocessor\t: 1\nmodel name\t: Fine CPU\n"
    files = {
        "proc/cpuinfo": info * 4,
        "proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-3,6\n",
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
    }
    facts = cpu.probe(_tree(tmp_path, files))
    assert (facts.model, facts.online, facts.usable_milli) == ("Fine CPU", 8, 5000)
    _tree(tmp_path, {"sys/fs/cgroup/a/cpu.max": "250000 100000"})
    assert cpu.probe(tmp_path).usable_milli == 2500


def test_cpu_of_v1_and_of_a_board(tmp_path):
    files = {
        "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd42\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin\0",
        "proc/self/cgroup": "3:cpu,cpuacct:/x\n",
        "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
    }
    facts = cpu.probe(_tree(tmp_path, files))
    assert facts.model == "NVIDIA Jetson AGX Orin"
    assert facts.usable_milli == 1000


def test_memory_under_limits(tmp_path):
    files = {
        "proc/meminfo": "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n",
        "proc/self/cgroup": "4:memory:/x\n",
        "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712",
    }
    facts = memory.probe(_tree(tmp_path, files))
    assert (facts.total_bytes, facts.usable_bytes, facts.available_bytes) == (GIB, GIB, GIB // 2)
    _tree(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000"})
    assert memory.probe(tmp_path).usable_bytes == 1_000_000


def test_host_and_disk(tmp_path):
    files = {
        "proc/sys/kernel/hostname": "h1\n",
        "proc/sys/kernel/osrelease": "6.1\n",
        "proc/sys/kernel/random/boot_id": "b\n",
        "proc/sys/kernel/arch": "aarch64\n",
        "etc/os-release": 'PRETTY_NAME="Debian 13"\n',
        "sys/fs/cgroup/cgroup.controllers": "cpu",
    }
    facts = host.probe(_tree(tmp_path, files))
    assert (facts.hostname, facts.boot_id, facts.arch) == ("h1", "b", "aarch64")
    assert (facts.cgroup_mode, facts.system) == ("v2", "Debian 13")
    assert disk.probe(tmp_path).total_bytes >= disk.probe(tmp_path).free_bytes > 0


def test_emulated_nodes_say_so():
    nodes = emulated.fleet(12)
    assert len({node.host.hostname for node in nodes}) == 12
    assert all(node.emulated and all(d.emulated for d in node.devices) for node in nodes)
    assert {device.family for node in nodes for device in node.devices} == {
        "gpu", "jetson", "tpu", "fpga",
    }  # fmt: skip
    assert emulated.probe("a100", 1) == emulated.probe("a100", 1)
    assert len(emulated.probe("h100", 0).devices) == 8


def test_this_host(tmp_path):
    facts = table.discover(tmp_path)
    assert facts.cpu.usable_milli >= 10
    assert facts.memory.total_bytes >= facts.memory.usable_bytes > 0
    assert facts.host.boot_id
    assert not facts.emulated
