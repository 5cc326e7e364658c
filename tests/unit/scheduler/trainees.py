"""Hosts and elastic jobs for tests."""

from gridlease_scheduler.domain.sizing.lessons import Row, Trainee
from gridlease_scheduler.domain.sizing.seats import Held, Host

HOSTS = (
    *(Host(f"l4-{i}", "L4", 4) for i in range(3)),
    *(Host(f"a100-{i}", "A100", 8) for i in range(2)),
)
SPEEDS = {"L4": 1.0, "A100": 3.0}


def held(chip, **nodes):
    """What a job holds: ``held("L4", l4_0=2)``."""
    spots = sorted((name.replace("_", "-"), count) for name, count in nodes.items())
    return Held(chip, tuple(spots))


def table(power=0.8, most=2, speeds=None):
    """Goodput rows that grow as a power of the devices."""
    return {
        chip: tuple(Row(n, 1, speed * n**power) for n in range(1, most + 1))
        for chip, speed in (speeds or SPEEDS).items()
    }


def trainee(name, *, has=None, rows=None, **more):
    """An elastic job; by default new, of an application of its own."""
    given = {
        "app": name, "age_s": 0.0, "done": 0.0, "restart_left_s": 0.0, "restart_s": 50.0,
        "restarts": 0, "device_s": 0.0, "hint": 4, "least": 1, "most": 16,
        "seen": has.devices if has else 0,
    } | more  # fmt: skip
    rows = rows or table(most=max(1, 2 * given["seen"]))
    return Trainee(name, held=has, rows=rows, **given)
