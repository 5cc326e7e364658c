"""The profile as a classic BPF program: what the kernel loads, made without libseccomp.

The system call number is looked up by bisection, so that a call costs about eight comparisons
whatever its place. Source: Linux, Documentation/userspace-api/seccomp_filter.rst; struct
sock_filter is (u16 code, u8 jt, u8 jf, u32 k).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from gridlease_agent.seccomp.profile import ENOSYS, EPERM, Arch, Checked, Condition, Profile

_LD_W_ABS = 0x20
_JMP_JA = 0x05
_JMP_JEQ = 0x15
_JMP_JGE = 0x35
_JMP_JSET = 0x45
_RET = 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000
_OFFSET_NR = 0
_OFFSET_ARCH = 4
_OFFSET_ARGS = 16
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

Instruction = tuple[int, int, int, int]
Code = list[Instruction]


@dataclass(frozen=True, slots=True)
class _Range:
    """System call numbers from ``start`` up to the next range's start, and what they run."""

    start: int
    code: tuple[Instruction, ...]


def _ret(value: int) -> Code:
    return [(_RET, 0, 0, value)]


def _errno(number: int) -> Code:
    return _ret(_ERRNO | number)


def _load_arg(index: int) -> Instruction:
    # Little endian on both architectures: the low half comes first.
    return (_LD_W_ABS, 0, 0, _OFFSET_ARGS + 8 * index)


def _matches(condition: Condition, then: Code) -> Code:
    """Run ``then`` (which returns) if every equality holds; fall through otherwise."""
    code = then
    for arg, value in reversed(condition):
        code = [_load_arg(arg), (_JMP_JEQ, 0, len(code), value), *code]
    return code


def _checked(call: Checked) -> Code:
    denied = _errno(call.errno)
    if call.deny_bits is not None:
        arg, bits = call.deny_bits
        return [_load_arg(arg), (_JMP_JSET, 0, 1, bits), *denied, *_ret(_ALLOW)]
    code: Code = []
    for condition in call.allow_equal or call.deny_equal:
        code += _matches(condition, _ret(_ALLOW) if call.allow_equal else denied)
    return code + (denied if call.allow_equal else _ret(_ALLOW))


def _ranges(profile: Profile) -> list[_Range]:
    """Neighbouring numbers with the same fate, as one range; gaps answer ENOSYS."""
    fate: dict[int, tuple[Instruction, ...]] = {}
    fate.update(dict.fromkeys(profile.allow.values(), tuple(_ret(_ALLOW))))
    fate.update(dict.fromkeys(profile.deny.values(), tuple(_errno(EPERM))))
    fate.update({call.nr: tuple(_checked(call)) for call in profile.checked if call.nr >= 0})
    unknown = tuple(_errno(ENOSYS))
    ranges = [_Range(0, fate.get(0, unknown))]
    for nr in range(1, max(fate) + 2):
        code = fate.get(nr, unknown)
        if code != ranges[-1].code:
            ranges.append(_Range(nr, code))
    return ranges


def _search(ranges: list[_Range]) -> Code:
    if len(ranges) == 1:
        return list(ranges[0].code)
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle].start
    if len(below) <= 255:
        return [(_JMP_JGE, len(below), 0, pivot), *below, *above]
    return [(_JMP_JGE, 0, 1, pivot), (_JMP_JA, 0, 0, len(below)), *below, *above]


def assemble(profile: Profile) -> Code:
    """The program: architecture, then the x32 bit, then bisection over the numbers."""
    head: Code = [
        (_LD_W_ABS, 0, 0, _OFFSET_ARCH),
        (_JMP_JEQ, 1, 0, _AUDIT_ARCH[profile.arch]),
        *_ret(_KILL_PROCESS),
        (_LD_W_ABS, 0, 0, _OFFSET_NR),
    ]
    if profile.arch == "x86_64":
        head += [(_JMP_JGE, 0, 1, _X32_BIT), *_errno(ENOSYS)]
    program = head + _search(_ranges(profile))
    assert len(program) <= 4096, len(program)  # BPF_MAXINSNS
    return program


def compile_profile(profile: Profile) -> bytes:
    """The program as bytes, ready for ``seccomp(2)``, ``bwrap --seccomp`` and crun."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in assemble(profile))


def interpreter(profile: Profile) -> Callable[[int, tuple[int, ...]], int]:
    """The kernel's verdict in Python: ``verdict(nr, args)`` → the action word; for tests."""
    program = assemble(profile)

    def verdict(nr: int, args: tuple[int, ...]) -> int:
        data = struct.pack(
            "<IIQ6Q", nr, _AUDIT_ARCH[profile.arch], 0, *(*args, *(0,) * (6 - len(args)))
        )
        return _run(program, data)

    return verdict


def _run(program: Code, data: bytes) -> int:
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        if code == _RET:
            return k
        if code == _LD_W_ABS:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif code == _JMP_JA:
            at += k
        else:
            holds = {
                _JMP_JEQ: accumulator == k,
                _JMP_JGE: accumulator >= k,
                _JMP_JSET: bool(accumulator & k),
            }[code]
            at += jump_true if holds else jump_false


def host_arch(machine: str) -> Arch | None:
    """The profile's name of ``uname -m``, or None where there is no profile."""
    return {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}.get(
        machine
    )  # type: ignore[return-value]  # the table holds only names of Arch
