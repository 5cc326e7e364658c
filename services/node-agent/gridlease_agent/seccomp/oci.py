"""The profile as the ``linux.seccomp`` object of an OCI configuration: the portable rendering."""

from __future__ import annotations

from typing import Any

from gridlease_agent.seccomp.profile import ENOSYS, EPERM, Checked, Condition, Profile

_ARCH = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def render(profile: Profile) -> dict[str, Any]:
    """The OCI object. Source: OCI runtime specification 1.0.2, config-linux, seccomp."""
    calls: list[dict[str, Any]] = [
        {"names": sorted(profile.allow), "action": "SCMP_ACT_ALLOW"},
        {"names": sorted(profile.deny), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
    ]
    for call in profile.checked:
        calls += _checked(call)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": [_ARCH[profile.arch]],
        "syscalls": calls,
    }


def _equal(condition: Condition) -> list[dict[str, Any]]:
    return [
        {
            "index": arg,
            "op": "SCMP_CMP_MASKED_EQ",
            "value": 0xFFFFFFFF,
            "valueTwo": value,
        }
        for arg, value in condition
    ]


def _checked(call: Checked) -> list[dict[str, Any]]:
    allow = {"names": [call.name], "action": "SCMP_ACT_ALLOW"}
    if call.allow_equal:
        # What matches no alternative falls to the default: denied all the same.
        return [allow | {"args": _equal(condition)} for condition in call.allow_equal]
    if call.deny_bits is not None:
        arg, bits = call.deny_bits
        clear = {"index": arg, "op": "SCMP_CMP_MASKED_EQ", "value": bits, "valueTwo": 0}
        return [allow | {"args": [clear]}]
    # libseccomp joins the conditions of one rule with "and": none of the values.
    # The kernel takes an ioctl command as 32 bits and libseccomp compares 64: the compiled
    # rendering is the exact one, this fallback also lets only canonical values be compared.
    return [
        allow
        | {
            "args": [
                {"index": arg, "op": "SCMP_CMP_NE", "value": value}
                for condition in call.deny_equal
                for arg, value in condition
            ]
        }
    ]
