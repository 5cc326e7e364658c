"""``python -m tests.sim NAME [OPTIONS]``: a simulator's long runs."""

import sys

from tests.sim.money import command

SIMULATORS = {
    "billing": (
        command.main,
        "money under loss, crashes and lies, in memory and on PostgreSQL: no atom may drift",
    )
}


def main(words):
    if not words or words[0] in ("-h", "--help"):
        print("usage: ./dev sim NAME [--help]\n")
        for name, (_, line) in sorted(SIMULATORS.items()):
            print(f"  {name:<12} {line}")
        return 0
    name, *arguments = words
    if name not in SIMULATORS:
        known = ", ".join(sorted(SIMULATORS))
        print(f"There is no simulator named {name!r}: choose one of {known}.", file=sys.stderr)
        return 2
    return SIMULATORS[name][0](arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
