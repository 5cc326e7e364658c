"""``python -m tests.bench [NAME [OPTIONS]]``: lists the benches, or runs one."""

import importlib
import sys

# Name -> (module with ``main(arguments) -> int``, what it measures).
BENCHES = {
    "agent": (
        "tests.bench.agent",
        "memory and CPU of core and executor, memory a task: 8 devices (emulated), 20 tasks, 1 Hz",
    ),
    "elastic": (
        "tests.bench.elastic",
        "completion of elastic training jobs beside FIFO and a Sia-like optimiser; adapter",
    ),
    "isolation": (
        "tests.bench.isolation",
        "what a neighbour cannot take: CPU, memory, disk, bandwidth; a critical flow under flood",
    ),
    "ledger": (
        "tests.bench.ledger",
        "counters folded, charged and posted beside COPY of as many rows; holds; visibility",
    ),
    "mesh": (
        "tests.bench.mesh",
        "calls and streams over the mesh, gRPC, plain NATS and HTTP+JSON, in one run",
    ),
    "packing": (
        "tests.bench.packing",
        "accelerators given away on a replayed cluster trace, beside FGD, on the same stream",
    ),
    "rounds": (
        "tests.bench.rounds",
        "completion time of Gavel's jobs on mixed devices, beside FIFO and max-min fairness",
    ),
    "placement": (
        "tests.bench.placement",
        "gangs placed for good a second, through the mesh, billing and PostgreSQL; the core alone",
    ),
    "preempt": (
        "tests.bench.preempt",
        "a critical gang on a full cluster: ms to decide, and work lost beside the optimum",
    ),
    "restart": (
        "tests.bench.restart",
        "from a new leader's first instant to its first decision, behind 100,000 jobs",
    ),
    "start": (
        "tests.bench.start",
        "order -> first byte, cold, created ahead and frozen; pull -> runnable",
    ),
    "telemetry": (
        "tests.bench.telemetry",
        "2,000 agents reporting once a second: cost a message, losses, agents a core",
    ),
}


def main(words):
    if not words or words[0] in ("-h", "--help"):
        print("usage: ./dev bench NAME [--help]\n")
        for name, (_, line) in sorted(BENCHES.items()):
            print(f"  {name:<12} {line}")
        return 0
    name, *arguments = words
    if name not in BENCHES:
        known = ", ".join(sorted(BENCHES))
        print(f"There is no bench named {name!r}: choose one of {known}.", file=sys.stderr)
        return 2
    return importlib.import_module(BENCHES[name][0]).main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
