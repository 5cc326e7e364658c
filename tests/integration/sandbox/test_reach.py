"""Out of reach: other tenants' files and processes, the host's network, the kernel's odd doors."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the host's python3")

# Name → Python that raises OSError when denied; run inside each runtime.
DENIED = {
    "unshare_user": "sys(272, 0x10000000)",
    "unshare_mount": "sys(272, 0x00020000)",
    "clone_newuser": "sys(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "clone_newnet": "sys(56, 0x40000000 | 17, 0, 0, 0, 0)",
    "clone3": "sys(435, 0, 0)",
    "setns": "sys(308, 0, 0)",
    "mount": "sys(165, 0, 0, 0, 0, 0)",
    "umount": "sys(166, 0, 0)",
    "pivot_root": "sys(155, 0, 0)",
    "chroot": "os.chroot('/tmp')",
    "open_tree": "sys(428, -100, 0, 0)",
    "fsopen": "sys(430, 0, 0)",
    "move_mount": "sys(429, 0, 0, 0, 0, 0)",
    "ptrace": "sys(101, 0, 0, 0, 0)",
    "process_vm_readv": "sys(310, os.getpid(), 0, 0, 0, 0, 0)",
    "process_vm_writev": "sys(311, os.getpid(), 0, 0, 0, 0, 0)",
    "pidfd_getfd": "sys(438, 0, 0, 0)",
    "perf_event_open": "sys(298, 0, 0, 0, 0, 0)",
    "bpf": "sys(321, 0, 0, 0)",
    "io_uring_setup": "sys(425, 1, 0)",
    "userfaultfd": "sys(323, 0)",
    "keyctl": "sys(250, 0, 0, 0, 0, 0)",
    "add_key": "sys(248, 0, 0, 0, 0, 0)",
    "kexec_load": "sys(246, 0, 0, 0, 0)",
    "init_module": "sys(175, 0, 0, 0)",
    "finit_module": "sys(313, 0, 0, 0)",
    "reboot": "sys(169, 0, 0, 0, 0)",
    "clock_settime": "sys(227, 0, 0)",
    "settimeofday": "sys(164, 0, 0)",
    "syslog": "sys(103, 3, 0, 0)",
    "swapon": "sys(167, 0, 0)",
    "iopl": "sys(172, 3)",
    "open_by_handle_at": "sys(304, 0, 0, 0)",
    "fanotify_init": "sys(300, 0, 0)",
    "personality": "sys(135, 0x0040000)",
    "x32_getpid": "sys(0x40000000 + 39)",
    "unknown_call": "sys(1999)",
    "af_vsock": "socket.socket(40, socket.SOCK_STREAM)",
    "af_packet": "socket.socket(17, socket.SOCK_RAW)",
    "af_alg": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "raw_socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink_audit": "socket.socket(16, socket.SOCK_RAW, 9)",
    "tiocsti": "fcntl.ioctl(os.openpty()[1], 0x5412, b'x')",
    "mknod_device": "os.mknod('/work/sda', 0o60600, os.makedev(8, 0))",
    "write_usr": "open('/usr/x', 'w')",
    "write_root": "open('/x', 'w')",
    "write_etc": "open('/etc/passwd', 'a')",
    "read_shadow": "open('/etc/shadow')",
    "write_sysctl": "open('/proc/sys/kernel/hostname', 'w').write('x')",
    "sysrq": "open('/proc/sysrq-trigger', 'w')",
    "setuid_root": "os.setuid(0)",
    "sethostname": "socket.sethostname('x')",
    "chown_root": "os.chown('/work', 0, 0)",
    "raise_nofile": "resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))",
    "cgroup_write": "open('/sys/fs/cgroup/cgroup.procs', 'w')",
    "dev_kmsg": "open('/dev/kmsg')",
    "dev_disk": "open('/dev/vda')",
    "kcore": "assert_empty('/proc/kcore')",
}
PROBE = """
import ctypes, fcntl, json, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def sys(*args):
    if libc.syscall(*[ctypes.c_long(a) for a in args]) == -1:
        raise OSError(ctypes.get_errno(), 'denied')
def assert_empty(path):
    if not open(path, 'rb').read(1):
        raise OSError(1, 'masked')
found = {}
for name, code in json.load(open('probes.json')).items():
    try:
        exec(code)
        found[name] = 'ALLOWED'
    except (OSError, ValueError) as trouble:
        found[name] = getattr(trouble, 'errno', None) or 1
print(json.dumps(found))
"""


def _python(bench, source: str, files: dict[str, str] | None = None, **parts):
    from gridlease_agent.runtimes.spec import SandboxSpec
    from gridlease_agent.sandbox import Deadline

    lease_id = f"ls-py-{os.getpid()}-{len(bench.sandboxes.list())}"
    work = bench.sandboxes.prepare(lease_id)
    for name, text in {"main.py": source, **(files or {})}.items():
        (work / name).write_text(text)
    spec = SandboxSpec(lease_id, (PYTHON, "main.py"), **parts)
    bench.sandboxes.start(lease_id, spec, Deadline.after(30_000, 0))
    record = bench.exited(lease_id).record
    return record, bench.log(lease_id)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probes' numbers are x86-64's")
def test_every_escape_probe_is_denied(bench):
    record, log = _python(bench, PROBE, {"probes.json": json.dumps(DENIED)})
    found = json.loads(log.strip().splitlines()[-1])
    assert record.exit_code == 0
    assert [name for name, answer in found.items() if answer == "ALLOWED"] == []
    assert len(found) == len(DENIED) > 50
    # The filter itself answers, not only the missing capability.
    assert {name: found[name] for name in ("unknown_call", "clone3", "x32_getpid")} == {
        "unknown_call": 38, "clone3": 38, "x32_getpid": 38,
    }  # fmt: skip
    assert found["af_vsock"] == 97
    assert found["io_uring_setup"] == found["userfaultfd"] == found["keyctl"] == 1


@pytest.mark.root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probes' numbers are x86-64's")
def test_the_portable_profile_denies_the_same(crun_bench, monkeypatch):
    """Without the compiled program crun compiles the list itself: the fallback."""
    render = crun_bench.sandboxes._render

    def without_program(spec, folder):
        plan = render(spec, folder)
        plan["oci"]["annotations"].clear()
        return plan

    monkeypatch.setattr(crun_bench.sandboxes, "_render", without_program)
    # libseccomp kills for x32 instead of answering: left out here.
    probes = {name: code for name, code in DENIED.items() if name != "x32_getpid"}
    record, log = _python(crun_bench, PROBE, {"probes.json": json.dumps(probes)})
    found = json.loads(log.strip().splitlines()[-1])
    assert record.exit_code == 0
    assert [name for name, answer in found.items() if answer == "ALLOWED"] == []
    assert found["unknown_call"] == found["clone3"] == 38


def test_ordinary_work_goes_on(bench):
    """Threads, processes, pipes, TCP, locks, fifos, shared memory, ptys."""
    source = """
import multiprocessing, os, pty, socket, subprocess, tempfile, threading
def double(x): return 2 * x
if __name__ == '__main__':
    server = socket.create_server(('127.0.0.1', 0))
    client = socket.create_connection(server.getsockname())
    peer, _ = server.accept()
    client.sendall(b'hello'); assert peer.recv(5) == b'hello'
    threads = [threading.Thread(target=double, args=(1,)) for _ in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert subprocess.check_output(['sh', '-c', 'echo hi | tr a-z A-Z']) == b'HI\\n'
    with multiprocessing.Pool(2) as pool:
        assert pool.map(double, range(4)) == [0, 2, 4, 6]
    os.mkfifo('fifo'); tempfile.NamedTemporaryFile().close(); pty.openpty()
    assert socket.gethostbyname('localhost') == '127.0.0.1'
    assert socket.if_nameindex() == [(1, 'lo')]
    assert os.getuid() == 1000 and os.getcwd() == '/work'
    print('fine')
"""
    record, log = _python(bench, source)
    assert (record.exit_code, log) == (0, "fine\n")


def test_another_tenants_files_and_processes_are_out_of_reach(bench):
    victim = bench.start("echo secret > mine; echo up; exec sleep 50", env=(("KEY", "s3cret"),))
    bench.says(victim, "up")
    started = json.loads((bench.folder(victim) / "started.json").read_text())
    host = bench.folder(victim) / "work/mine"
    script = f"""
cat {host} && echo LEAK
ls {bench.state_dir} && echo LEAK
cat /proc/{started["init_pid"]}/environ && echo LEAK
kill -9 {started["init_pid"]} && echo LEAK
ls -d /home /root /var /sys /mnt /srv 2>/dev/null && echo LEAK
ls /proc | grep -c '^[0-9]'
"""
    _record, log = bench.run(script)
    assert "LEAK" not in log
    assert "secret" not in log
    assert int(log.strip().splitlines()[-1]) <= 6
    bench.running(victim)


def test_the_hosts_network_and_sockets_are_out_of_reach(bench, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        abstract = f"\0gridlease-test-{os.getpid()}"
        local.bind(abstract)
        local.listen()
        source = f"""
import socket
for family, address in ((socket.AF_INET, ('127.0.0.1', {tcp.getsockname()[1]})),
                        (socket.AF_UNIX, {abstract!r}),
                        (socket.AF_INET, ('192.0.2.1', 80))):
    try:
        socket.socket(family).connect(address)
        print('LEAK', address)
    except OSError as trouble:
        print('denied', trouble.errno)
"""
        record, log = _python(bench, source)
    assert record.exit_code == 0
    assert log.count("denied") == 3


def test_the_agents_environment_does_not_leak(bench, monkeypatch):
    monkeypatch.setenv("GRIDLEASE_SECRET", "do-not-show")
    _record, log = bench.run("env; cat /proc/1/environ; ls -l /proc/self/fd")
    assert "do-not-show" not in log
    assert "leases" not in log


def test_the_root_is_read_only_and_work_is_ours(bench):
    script = (
        "touch /work/a /tmp/b /dev/shm/c || exit 1;"
        " for d in / /usr /etc /opt /run; do touch $d/x && echo LEAK; done; exit 0"
    )
    record, log = bench.run(script)
    assert record.exit_code == 0
    assert "LEAK" not in log


@pytest.mark.root
def test_files_belong_to_the_leases_own_host_user(crun_bench):
    lease_id = crun_bench.start("id -u; touch x", uid_base=331_072)
    assert crun_bench.exited(lease_id).record.exit_code == 0
    assert crun_bench.log(lease_id) == "1000\n"
    assert (crun_bench.folder(lease_id) / "work/x").stat().st_uid == 332_072


@pytest.mark.root
def test_the_hosts_null_device_stays_roots(crun_bench):
    crun_bench.run("exit 0")
    assert Path("/dev/null").stat().st_uid == 0


@pytest.mark.root
def test_under_a_folder_that_only_root_can_enter(tmp_path, crun_bench):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    inner = type(crun_bench)(closed / "state", crun_bench.runtime)
    record, log = inner.run("echo fine > f; cat f")
    assert (record.exit_code, log) == (0, "fine\n")


UNPRIVILEGED = """
import sys
from pathlib import Path
from gridlease_agent.runtimes.choose import choose_runtime
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline, Exited, Sandboxes
from gridlease_testkit.waiting import eventually_sync
runtime = choose_runtime()
print(runtime.name, runtime.root, len(runtime.unenforced))
sandboxes = Sandboxes(Path(sys.argv[1]), runtime)
def run(name, script, span_ms=20000, **parts):
    spec = SandboxSpec(name, ("/bin/sh", "-c", script), **parts)
    sandboxes.start(name, spec, Deadline.after(span_ms, 0))
    eventually_sync(lambda: isinstance(sandboxes.inspect(name), Exited), 30)
    record = sandboxes.inspect(name).record
    print(record.reason, record.exit_code)
import json, os
def lose_the_shim():
    spec = SandboxSpec("ls-d", ("/bin/sh", "-c", "echo up; sleep 60"))
    sandboxes.start("ls-d", spec, Deadline.after(60000, 0))
    folder = sandboxes.folder("ls-d")
    eventually_sync((folder / "started.json").exists, 30)
    os.kill(json.loads((folder / "shim.json").read_text())["pid"], 9)
    eventually_sync((folder / "exit.json").exists, 30)
    print(sandboxes.inspect("ls-d").record.reason, sandboxes.inspect("ls-d").record.clean)
run("ls-a", "id -u; touch /work/x; exit 3")
run("ls-b", "trap '' TERM; while :; do sleep 0.1; done", span_ms=700)
run("ls-c", "i=0; while [ $i -lt 60 ]; do sleep 9 & i=$((i+1)); done", pids=20)
lose_the_shim()
"""


@pytest.mark.root
def test_as_an_ordinary_user(bwrap_runtime):
    """bubblewrap alone, by a user without any right: the state folder is the user's own."""
    packages = Path(sys.prefix, "lib", f"python3.{sys.version_info[1]}", "site-packages")
    import gridlease_agent
    import gridlease_kernel
    import gridlease_testkit

    modules = (gridlease_agent, gridlease_kernel, gridlease_testkit)
    paths = [Path(module.__file__).parent.parent for module in modules]
    own = subprocess.run(
        ["mktemp", "-d"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        os.chown(own, 65534, 65534)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", PYTHON]
        if subprocess.run([*command, "-c", f"import os; os.listdir({str(paths[0])!r})"],
                          capture_output=True, check=False).returncode:  # fmt: skip
            pytest.skip("the checkout lies where an ordinary user cannot read")
        path = ":".join(map(str, [*paths, packages]))
        done = subprocess.run(
            [*command, "-c", UNPRIVILEGED, f"{own}/state"],
            env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "bubblewrap False 3"
        assert lines[1] == "EXITED 3"
        assert lines[2] == "DEADLINE 137"
        assert lines[3].startswith("EXITED ")
        assert lines[3] != "EXITED 0"
        assert lines[4] == "SHIM_LOST True"
        assert Path(own, "state/leases/ls-a/log").read_text() == "1000\n"
    finally:
        shutil.rmtree(own)
