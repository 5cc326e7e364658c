"""Made-up clusters and traces, small enough to work out by hand."""

from gridlease_simulate import clusterfile, csvfile, traces
from gridlease_simulate.policies import POLICIES
from gridlease_simulate.replay import Replay
from gridlease_simulate.rules import Rules
from gridlease_simulate.workload import prepared

TWO_L4 = """
[[site]]
name = "north"
pue = 2
energy_price_per_kwh = "0.10"
carbon_g_per_kwh = 500

[[nodes]]
name = "l4"
site = "north"
count = 1
chip = "L4-24GB"
devices = 2
cpu = 8
memory = "64GB"
watts = 100
price = "1.20"

[tiers]
spot = 50

[[chip]]
name = "L4-24GB"
idle_watts = 20
peak_watts = 80

[[chip]]
name = "cpu-x86-64"
idle_watts = 1
peak_watts = 3
"""


def read_trace(text, cluster, **more):
    """A trace from its text."""
    file = csvfile.parse(text, "made-up.csv")
    reading = traces.Reading(cluster.catalogue, cluster.widest(), cluster.slices, **more)
    return traces.parse(file, reading)


def play(cluster_text, trace_text, policy="gridlease", rules=None, **thinned):
    """The outcome of a made-up run."""
    cluster = clusterfile.parse(cluster_text)
    trace = prepared(read_trace(trace_text, cluster), **thinned)
    return Replay(cluster, trace, POLICIES.get(policy, policy), rules or Rules()).run()


def recount(outcome):
    """Over-allocation at any instant, from the leases alone: node, device and instant of each."""
    nodes = {node.node_id: node for node in outcome.cluster.nodes()}
    found = []
    events = sorted(
        [(x.from_ms, 1, at, x) for at, x in enumerate(outcome.leases)]
        + [(x.until_ms, 0, at, x) for at, x in enumerate(outcome.leases)],
        key=lambda event: event[:3],
    )
    cpu, memory, devices = {}, {}, set()
    for at_ms, begins, _, lease in events:
        held, name, sign = lease.allocation, lease.node_id, 1 if begins else -1
        cpu[name] = cpu.get(name, 0) + sign * held.cpu_milli
        memory[name] = memory.get(name, 0) + sign * held.memory_bytes
        for device in held.device_ids:
            key = (name, device)
            if begins and key in devices:
                found.append((at_ms, key))
            (devices.add if begins else devices.discard)(key)
        if cpu[name] > nodes[name].cpu_milli or memory[name] > nodes[name].memory_bytes:
            found.append((at_ms, name))
    return found
