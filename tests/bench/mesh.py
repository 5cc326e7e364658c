"""``./dev bench mesh``: calls and streams over the mesh and its rivals, interleaved in one run.

Client, server and broker are processes of their own; the CPU of all three counts.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
import timeit
from pathlib import Path

import orjson
from gridlease_mesh.embedded import EmbeddedNats

from tests.bench import children, figures, mesh_messages

TRANSPORTS = ("grpc", "mesh", "nats", "http", "aiohttp")
NAMES = {
    "grpc": "grpc.aio",
    "mesh": "mesh",
    "nats": "nats-py",
    "http": "HTTP+JSON, bare client",
    "aiohttp": "HTTP+JSON, aiohttp",
}
# Case -> (what the client runs, at once, what it is).
CASES = {
    "unary_c1": ("ping", 1, "unary, 14 bytes, 1 at once"),
    "unary_c64": ("ping", 64, "unary, 14 bytes, 64 at once"),
    "report_c1": ("report", 1, "unary, 64-device report as plain rows, 1 at once"),
    "report_c64": ("report", 64, "unary, 64-device report as plain rows, 64 at once"),
    "server_stream": ("download", 1, "server stream, 14 bytes (messages)"),
    "client_stream": ("upload", 1, "client stream, 14 bytes (messages)"),
    "bidi_stream": ("chat", 1, "bidi stream, 14 bytes, echo (messages)"),
}
FIGURES = ("per_s", "p50_ms", "p99_ms", "client_us", "server_us", "broker_us", "cpu_us")


class Rivals:
    """All the processes of a run."""

    def __init__(self, broker, transports):
        self._broker = broker
        self._servers, self._clients = {}, {}
        try:
            self._start(transports)
        except BaseException:
            self.stop()
            raise

    def _start(self, transports):
        creds = {
            transport: [str(self._broker.service_creds(f"bench-{transport}"))]
            for transport in transports
            if transport in ("mesh", "nats")
        }
        for transport in transports:
            place = [self._broker.url, *creds[transport]] if transport in creds else []
            self._servers[transport] = children.Child("tests.bench.mesh_serve", transport, *place)
        for transport, server in self._servers.items():
            words = [server.ready["address"], *creds.get(transport, [])]
            self._clients[transport] = children.Child("tests.bench.mesh_load", transport, *words)
        assert all(client.ready for client in self._clients.values())

    def measure(self, transport, case, seconds):
        """One round of one case; None where the transport has no such thing."""
        what, concurrency, _ = CASES[case]
        server, client = self._servers[transport], self._clients[transport]
        before = server.cpu_s(), children.cpu_s(self._broker.pid)
        found = client.ask(case=what, concurrency=concurrency, seconds=seconds)
        after = server.cpu_s(), children.cpu_s(self._broker.pid)
        if "skipped" in found:
            return None
        calls = found.pop("calls")
        found["server_us"] = (after[0] - before[0]) * 1e6 / calls
        found["broker_us"] = (after[1] - before[1]) * 1e6 / calls
        if transport not in ("mesh", "nats"):
            found["broker_us"] = 0.0  # what it did is not for them
        found["cpu_us"] = found["client_us"] + found["server_us"] + found["broker_us"]
        return found

    def stop(self):
        for child in [*self._clients.values(), *self._servers.values()]:
            child.stop()


def run(rivals, arguments):
    """Rounds over cases over transports: {case: {transport: [round, ...]}}."""
    found = {case: {transport: [] for transport in TRANSPORTS} for case in CASES}
    for transport in TRANSPORTS:
        for case in CASES:
            rivals.measure(transport, case, min(0.3, arguments.seconds))  # warm-up
    for number in range(arguments.rounds):
        figures.note(f"bench mesh: round {number + 1} of {arguments.rounds}")
        for case in CASES:
            for shift in range(len(TRANSPORTS)):
                transport = TRANSPORTS[(number + shift) % len(TRANSPORTS)]
                one = rivals.measure(transport, case, arguments.seconds)
                if one is not None:
                    found[case][transport].append(one)
    return found


def median(rounds):
    return {name: statistics.median(one[name] for one in rounds) for name in FIGURES}


def ratio(found, case, name, over):
    """Median over the rounds of mesh over the rival of the same round."""
    pairs = zip(found[case]["mesh"], found[case][over], strict=True)
    return statistics.median(mesh[name] / rival[name] for mesh, rival in pairs)


def ratios(found, over):
    return {
        "calls_per_s_c64": ratio(found, "unary_c64", "per_s", over),
        "cpu_per_call_c64": ratio(found, "unary_c64", "cpu_us", over),
        "p50_c1": ratio(found, "unary_c1", "p50_ms", over),
    }


def codec(number=200):
    """Bytes, and microseconds to write and to read, of both messages in each form."""
    found = {}
    for name, message in (("small", mesh_messages.ping()), ("report", mesh_messages.report())):
        rows = mesh_messages.plain(message)
        forms = {
            "protobuf": (message.SerializeToString, type(message).FromString),
            "orjson": (lambda rows=rows: orjson.dumps(rows), orjson.loads),
            "json": (lambda rows=rows: json.dumps(rows).encode(), json.loads),
        }
        for form, (write, read) in forms.items():
            data = write()
            found[f"{name}_{form}"] = {
                "bytes": len(data),
                "write_us": min(timeit.repeat(write, number=number, repeat=5)) / number * 1e6,
                "read_us": min(timeit.repeat(lambda r=read, d=data: r(d), number=number, repeat=5))
                / number
                * 1e6,
            }
    return found


def show(medians, sizes, outcome):
    for case, (_, _, title) in CASES.items():
        rows = [
            [
                NAMES[transport],
                f"{one['per_s']:,.0f}",
                f"{one['p50_ms']:.2f} / {one['p99_ms']:.2f}",
                *(f"{one[name]:.1f}" for name in FIGURES[3:]),
            ]
            for transport, one in medians[case].items()
        ]
        missing = [NAMES[t] for t in ("grpc", "mesh") if t not in medians[case]]
        note = f" — not carried yet by: {', '.join(missing)}" if missing else ""
        head = ["", "a second", "p50 / p99 ms", "client µs", "server µs", "broker µs", "CPU µs"]
        figures.table(title + note, head, rows)
    rows = [
        [name.replace("_", ", "), one["bytes"], f"{one['write_us']:.2f}", f"{one['read_us']:.2f}"]
        for name, one in sizes.items()
    ]
    figures.table("codec, one thread", ["message", "bytes", "write µs", "read µs"], rows)
    rows = [
        [name, f"{outcome['ratio'][name]:.3f}", wanted]
        + [f"{outcome[over][name]:.3f}" for over in ("ratio_http_json", "ratio_http_json_aiohttp")]
        for name, wanted in (
            ("calls_per_s_c64", ">= 6"),
            ("cpu_per_call_c64", "<= 0.125"),
            ("p50_c1", "<= 1"),
        )
    ]
    head = ["small unary call, mesh over", "grpc.aio", "target", NAMES["http"], NAMES["aiohttp"]]
    figures.table("ratios, each the median of those within a round", head, rows)


def main(words):
    parser = argparse.ArgumentParser(prog="./dev bench mesh", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6, help="of one measurement")
    arguments = parser.parse_args(words)
    figures.note(f"bench mesh: {figures.machine()}")
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="gl-bench-", dir="/tmp"))
    try:
        with EmbeddedNats(folder / "nats", die_with_parent=True) as broker:
            rivals = Rivals(broker, TRANSPORTS)
            try:
                found = run(rivals, arguments)
            finally:
                rivals.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = {
        case: {transport: median(rounds) for transport, rounds in by.items() if rounds}
        for case, by in found.items()
    }
    sizes = codec()
    per_rival = {
        transport: {case: by[transport] for case, by in medians.items() if transport in by}
        for transport in TRANSPORTS
    }
    outcome = {
        "bench": "mesh",
        "results": {**per_rival["mesh"], "codec": sizes},
        "baseline": {
            "grpc": per_rival["grpc"],
            "nats": per_rival["nats"],
            "http_json": per_rival["http"],
            "http_json_aiohttp": per_rival["aiohttp"],
        },
        "ratio": ratios(found, "grpc"),
        "ratio_http_json": ratios(found, "http"),
        "ratio_http_json_aiohttp": ratios(found, "aiohttp"),
        "skipped": [case for case, by in medians.items() if "mesh" not in by],
        "seconds": time.monotonic() - began,
    }
    show(medians, sizes, outcome)
    figures.last_line(**figures.rounded(outcome, 4))
    return 0
