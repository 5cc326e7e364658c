"""What a neighbour cannot take: CPU time, throughput, memory, processes, disk and bandwidth.

Needs root, crun, iproute2 and two cores. The flows are of 100 Mbit/s on links of 200.
"""

import argparse

from tests.bench import figures, isolation_network, neighbours

CLASSES = (2, 16, 128)


def _cpu(place, seconds):
    errors = neighbours.quota_error(place, seconds)
    figures.note(f"quota: {errors}")
    rates = neighbours.victim_ratio(place, seconds)
    figures.note(f"victim: {rates}")
    ratio = {key: rates["attacked"][key] / rates["alone"][key] for key in ("per_s", "per_cpu_s")}
    return {
        "cpu_quota_error_percent": max(errors.values()),
        "victim_throughput_ratio": ratio["per_s"],
        "victim_throughput_ratio_per_cpu_second": ratio["per_cpu_s"],
    }, rates["alone"]["per_s"]


def _flows(seconds, classes):
    percent, gaps = {}, {}
    for count in classes:
        found = isolation_network.under_flood(count, seconds)
        figures.note(f"{count} classes: {found}")
        percent[str(count)], gaps[str(count)] = found["percent"], found["gap_ms"]
    failed = isolation_network.over_a_failure(seconds)
    figures.note(f"path failure: {failed}")
    return {
        "critical_flow_percent": percent,
        "critical_flow_longest_gap_ms": gaps,
        "critical_flow_path_failure_percent": failed["percent"],
        "path_switch_ms": failed["gap_ms"],
    }


def main(words):
    parser = argparse.ArgumentParser(prog="./dev bench isolation", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of each flow and of the victim"
    )
    parser.add_argument("--classes", type=int, nargs="*", default=CLASSES)
    options = parser.parse_args(words)
    head = {"bench": "isolation", "machine": figures.machine(), "seconds": options.seconds}
    with neighbours.node() as place:
        results, alone = _cpu(place, options.seconds)
        bombs = neighbours.bombs(place)
    figures.note(f"bombs: {bombs}")
    results |= _flows(options.seconds, options.classes)
    results["bombs_contained"] = all(each["contained"] for each in bombs.values())
    results["bombs"] = bombs
    figures.table(
        f"Isolation on this machine, {options.seconds:g} s each",
        ("what", "found"),
        [(key, value) for key, value in figures.rounded(results, 5).items() if key != "bombs"],
    )
    outcome = {"results": results, "baseline": {"victim_alone_per_s": alone}, "ratio": {}}
    figures.last_line(**head, **figures.rounded(outcome, 6))
    return 0
