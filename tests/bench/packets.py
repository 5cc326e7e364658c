"""A sender and a receiver of paced UDP, each a process in a namespace: ``packets send|receive …``.

send HOST PORT MBPS SECONDS     paced payload; MBPS 0 = as fast as it goes
receive PORT SECONDS            one JSON line: bytes, first and last arrival, longest gap
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time

_PAYLOAD_BYTES = 1_400
_TURN_S = 0.001
_QUIET_S = 1.5


def send(host: str, port: int, mbps: float, seconds: float) -> int:
    """Bytes sent; each packet bears its number."""
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    out.connect((host, port))
    filler = bytes(_PAYLOAD_BYTES - 8)
    per_s = mbps * 1e6 / 8 / _PAYLOAD_BYTES
    begun, number, pace = time.monotonic(), 0, threading.Event()
    while (now := time.monotonic() - begun) < seconds:
        due = int(now * per_s) + 1 if mbps else number + 32
        while number < due:
            with contextlib.suppress(OSError):  # no way at the moment: lost, as on any wire
                out.send(struct.pack("!Q", number) + filler)
            number += 1
        if mbps:
            pace.wait(max(0.0, min(_TURN_S, begun + number / per_s - time.monotonic())))
    return number * _PAYLOAD_BYTES


def receive(port: int, seconds: float) -> dict[str, float]:
    """What arrived until nothing came for a while."""
    inn = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    inn.bind(("0.0.0.0", port))
    print("ready", flush=True)
    inn.settimeout(seconds + 10)
    buffer = bytearray(2_048)
    count, first, last, gap = 0, 0.0, 0.0, 0.0
    while True:
        try:
            inn.recv_into(buffer)
        except TimeoutError:
            break
        now = time.monotonic()
        if count == 0:
            first = now
            inn.settimeout(_QUIET_S)
        else:
            gap = max(gap, now - last)
        count, last = count + 1, now
    return {"bytes": count * _PAYLOAD_BYTES, "first": first, "last": last, "gap_ms": gap * 1e3}


def main(words: list[str]) -> None:
    if words[0] == "send":
        sent = send(words[1], int(words[2]), float(words[3]), float(words[4]))
        print(json.dumps({"bytes": sent}), flush=True)
    else:
        print(json.dumps(receive(int(words[1]), float(words[2]))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
