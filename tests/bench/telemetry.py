"""``./dev bench telemetry``: thousands of agents, each with its own connection, at 1 Hz."""

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import orjson
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_mesh.telemetry_codec import Decoder, Encoder

from tests.bench import children, figures
from tests.bench.mesh_messages import plain, report
from tests.unit.telemetry.busy import busy

_SPARE_FILES = 200
_WARM_UP_S = 4.0
_QUIET_S = 5.0


def codec(devices, leases=8, seconds=60):
    """What one node's report takes: bytes in steady state, microseconds to write and read."""
    samples = [busy(second, devices=devices, leases=leases) for second in range(1, seconds + 1)]
    encoder = Encoder(1)
    clock = time.perf_counter_ns
    began = clock()
    payloads = [encoder.encode(each, sequence=n, dropped=0) for n, each in enumerate(samples, 1)]
    write_us = (clock() - began) / 1e3 / len(samples)
    parses, reads = [], []
    for _ in range(20):
        decoder = Decoder("n")
        decoder.decode(payloads[0])
        began = clock()
        found = [decoder.decode(payload) for payload in payloads[1:]]
        parses.append((clock() - began) / 1e3 / len(found))
        began = clock()
        for each in found:
            _ = each.sample
        reads.append((clock() - began) / 1e3 / len(found))
    rows = [
        dict(zip(samples[1].devices._fields[:-1], values, strict=True)) | {"id": who.id}
        for who, values in zip(
            samples[1].identity.devices, zip(*samples[1].devices[:-1], strict=True), strict=True
        )
    ]
    text = orjson.dumps({"time_unix_ms": samples[1].time_unix_ms, "devices": rows})
    return {
        "bytes": int(statistics.median(map(len, payloads[1:]))),
        "key_bytes": len(payloads[0]),
        "write_us": write_us,
        "parse_us": min(parses),
        "read_all_us": min(parses) + min(reads),
        "json_bytes": len(text),
        "json_gzip_bytes": len(zlib.compress(text, 6)),
    }


def keys_of(broker, agents):
    """[node, token, seed] of each agent: its own narrow credentials."""
    made = []
    for index in range(agents):
        seed, public = new_user_key()
        node = f"n-{index:05d}"
        made.append([node, broker.authority.mint_node_user(node, public), seed])
    return made


def snapshot(broker, consumer, fleet):
    heard = consumer.ask()
    return {
        "at": time.monotonic(),
        "broker_s": children.cpu_s(broker.pid),
        "consumer_s": heard["cpu_s"],
        "fleet_s": fleet.ask(do="cpu")["cpu_s"],
        "received": heard["received"],
    }


def drained(consumer, sent):
    """The consumer's last word: when all that was sent has come, or nothing comes any more."""
    heard = consumer.ask()
    deadline = time.monotonic() + _QUIET_S
    while heard["received"] + heard["keyless"] < sent and time.monotonic() < deadline:
        threading.Event().wait(0.1)
        newer = consumer.ask()
        if newer["received"] != heard["received"]:
            deadline = time.monotonic() + _QUIET_S
        heard = newer
    return heard


def live(broker, folder, arguments):
    """Run the fleet: the two snapshots, what was sent, what was heard."""
    figures.note(f"bench telemetry: keys and connections of {arguments.agents} agents")
    keys = folder / "keys.json"
    keys.write_text(json.dumps(keys_of(broker, arguments.agents)))
    creds = str(broker.service_creds("metrics"))
    eager = "1" if arguments.eager else "0"
    consumer = children.Child("tests.bench.telemetry_consumer", broker.url, creds, eager)
    fleet = None
    try:
        fleet = children.Child(
            "tests.bench.telemetry_fleet", broker.url, str(keys), str(arguments.devices)
        )
        assert consumer.ready
        assert fleet.ready
        fleet.ask(do="start")
        pause = threading.Event()
        pause.wait(min(_WARM_UP_S, arguments.seconds))
        figures.note(f"bench telemetry: measuring {arguments.seconds:.0f} s")
        before = snapshot(broker, consumer, fleet)
        pause.wait(arguments.seconds)
        after = snapshot(broker, consumer, fleet)
        told = fleet.ask(do="stop")
        return before, after, told, drained(consumer, told["sent"])
    finally:
        for child in (fleet, consumer):
            if child is not None:
                child.stop()


def conclude(before, after, told, heard):
    """The figures of a live run."""
    messages = after["received"] - before["received"]

    def per_message(name):
        return (after[name] - before[name]) * 1e6 / messages

    broker_us, consumer_us = per_message("broker_s"), per_message("consumer_s")
    return {
        "broker_us_per_message": broker_us,
        "consumer_us_per_message": consumer_us,
        "lost": told["offered"] - heard["received"] - told["dropped"] - told["waiting"],
        "dropped": told["dropped"],
        "agents_per_core": int(1e6 / (broker_us + consumer_us)),
        "agents_per_broker_core": int(1e6 / broker_us),
        "agents_per_consumer_core": int(1e6 / consumer_us),
        "messages_per_s": messages / (after["at"] - before["at"]),
        "offered": told["offered"],
        "received": heard["received"],
        "keyless": heard["keyless"],
        "lost_seen_by_consumer": heard["lost"],
        "fleet_us_per_message": per_message("fleet_s"),
    }


def show(results, baseline):
    rows = [[name, f"{value:,.1f}"] for name, value in results.items()]
    figures.table("telemetry", ["figure", "value"], rows)
    rows = [
        ["packed, steady state", results["report_bytes"]],
        ["packed, key report (1 in 60)", results["key_report_bytes"]],
        ["plain protobuf rows", baseline["report_bytes"]],
        ["the same readings as JSON", baseline["json_bytes"]],
        ["the same readings as JSON, gzip", baseline["json_gzip_bytes"]],
    ]
    figures.table("a report of 64 devices", ["form", "bytes"], rows)


def enough_files(agents):
    """Raise the limit of open files, which children inherit; whether it is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = agents + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        print(
            f"bench telemetry: {agents} connections need {wanted} open files and the limit is "
            f"{hard}: raise it (ulimit -n), or give --agents {max(1, hard - _SPARE_FILES)}.",
            file=sys.stderr,
        )
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def main(words):
    parser = argparse.ArgumentParser(
        prog="./dev bench telemetry", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--devices", type=int, default=8, help="of each agent")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the measurement")
    parser.add_argument(
        "--eager", action="store_true", help="the consumer reads every value of every report"
    )
    arguments = parser.parse_args(words)
    if not enough_files(arguments.agents):
        return 1
    figures.note(f"bench telemetry: {figures.machine()}")
    began = time.monotonic()
    sizes, small = codec(64), codec(arguments.devices, leases=2)
    folder = Path(tempfile.mkdtemp(prefix="gl-bench-", dir="/tmp"))
    try:
        with EmbeddedNats(folder / "nats", die_with_parent=True) as broker:
            results = conclude(*live(broker, folder, arguments))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results |= {
        "report_bytes": sizes["bytes"],
        "key_report_bytes": sizes["key_bytes"],
        "parse_us_64_devices": sizes["parse_us"],
        "read_all_us_64_devices": sizes["read_all_us"],
        "write_us_64_devices": sizes["write_us"],
        "parse_us": small["parse_us"],
        "read_all_us": small["read_all_us"],
        "live_report_bytes": small["bytes"],
    }
    baseline = {
        "report_bytes": report().ByteSize(),
        "json_bytes": sizes["json_bytes"],
        "json_gzip_bytes": sizes["json_gzip_bytes"],
        "rows_json_bytes": len(orjson.dumps(plain(report()))),
    }
    ratio = {
        "report_bytes": results["report_bytes"] / baseline["report_bytes"],
        "json_bytes": results["report_bytes"] / baseline["json_bytes"],
        "json_gzip_bytes": results["report_bytes"] / baseline["json_gzip_bytes"],
    }
    show(results, baseline)
    outcome = {
        "bench": "telemetry",
        "results": results,
        "baseline": baseline,
        "ratio": ratio,
        "agents": arguments.agents,
        "devices": arguments.devices,
        "seconds": time.monotonic() - began,
    }
    figures.last_line(**figures.rounded(outcome, 4))
    return 0
