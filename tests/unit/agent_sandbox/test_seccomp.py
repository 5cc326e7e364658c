"""The compiled profile decides as the data says, on both architectures."""

from __future__ import annotations

import struct

import pytest
from gridlease_agent.seccomp import bpf, oci, profile

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
ARCHES = ("x86_64", "aarch64")


@pytest.mark.parametrize("arch", ARCHES)
def test_every_number_meets_its_fate(arch):
    strict = profile.load(arch)
    verdict = bpf.interpreter(strict)
    checked = {call.nr for call in strict.checked}
    for nr in range(1024):
        if nr in checked:
            continue
        expected = ERRNO | profile.ENOSYS
        if nr in strict.allow.values():
            expected = ALLOW
        elif nr in strict.deny.values():
            expected = ERRNO | profile.EPERM
        assert verdict(nr, ()) == expected, nr


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("clone", (0x003D0F00,), ALLOW),  # a thread
        ("clone", (17,), ALLOW),  # a fork
        ("clone", (0x10000000 | 17,), ERRNO | 1),
        ("clone", (0x02000000 | 17,), ERRNO | 1),
        ("socket", (2, 1, 0), ALLOW),
        ("socket", (10, 2, 0), ALLOW),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 9), ERRNO | 97),
        ("socket", (40, 1, 0), ERRNO | 97),
        ("socket", (17, 3, 0), ERRNO | 97),
        ("ioctl", (0, 0x5412), ERRNO | 1),
        ("ioctl", (0, (7 << 32) | 0x5412), ERRNO | 1),  # the kernel reads 32 bits of it
        ("ioctl", (0, 0x5413), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0040000,), ERRNO | 1),
    ],
)
def test_arguments_decide(arch, name, args, expected):
    strict = profile.load(arch)
    nr = next(call.nr for call in strict.checked if call.name == name)
    assert bpf.interpreter(strict)(nr, args) == expected


@pytest.mark.parametrize("arch", ARCHES)
def test_the_program_is_one_that_the_kernel_takes(arch):
    program = bpf.compile_profile(profile.load(arch))
    count = len(program) // 8
    assert 100 < count < 1000
    for at in range(count):
        code, yes, no, k = struct.unpack_from("<HBBI", program, 8 * at)
        if code == 0x05:
            assert at + 1 + k < count
        elif code & 0x07 == 0x05:
            assert at + 1 + max(yes, no) < count
    assert struct.unpack_from("<H", program, 8 * (count - 1))[0] == 0x06


@pytest.mark.parametrize("arch", ARCHES)
def test_no_call_stands_in_two_lists(arch):
    strict = profile.load(arch)
    names = [*strict.allow, *strict.deny, *strict.absent, *(call.name for call in strict.checked)]
    assert len(names) == len(set(names))
    numbers = [*strict.allow.values(), *strict.deny.values(), *strict.absent.values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("arch", ARCHES)
def test_what_must_never_be_allowed(arch):
    strict = profile.load(arch)
    doors = {
        "unshare", "setns", "mount", "ptrace", "process_vm_readv", "perf_event_open", "bpf",
        "io_uring_setup", "userfaultfd", "keyctl", "kexec_load", "init_module", "finit_module",
        "reboot", "clock_settime", "open_by_handle_at", "move_mount", "fsopen", "pidfd_getfd",
    }  # fmt: skip
    assert doors <= set(strict.deny)
    assert not doors & set(strict.allow)


def test_the_oci_rendering_names_the_same_calls():
    strict = profile.load("x86_64")
    rendered = oci.render(strict)
    allowed = {
        name
        for rule in rendered["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }
    assert allowed == set(strict.allow) | {call.name for call in strict.checked}
    assert rendered["defaultErrnoRet"] == profile.ENOSYS


def test_host_arch():
    assert bpf.host_arch("arm64") == "aarch64"
    assert bpf.host_arch("riscv64") is None
