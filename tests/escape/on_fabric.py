"""Runs inside a sandbox on the fabric: serves, then tries the flows of ``flows.json``.

Standard library only. Prints ``up`` once it serves, waits for the file ``go``, then prints one
JSON line a flow, and keeps serving until it is ended.
"""

# ruff: noqa: BLE001, PTH110, PTH123

from __future__ import annotations

import concurrent.futures
import errno
import json
import os
import select
import signal
import socket
import threading

PORT = 7007
PATIENCE_S = 0.6


def serve():
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", PORT))
    streams = socket.create_server(("0.0.0.0", PORT))

    def answer():
        while True:
            ready = select.select([datagrams, streams], [], [])[0]
            if datagrams in ready:
                data, peer = datagrams.recvfrom(3000)
                datagrams.sendto(data, peer)
            if streams in ready:
                streams.accept()[0].close()

    threading.Thread(target=answer, daemon=True).start()


def tcp(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(PATIENCE_S)
        stream.connect((host, port))


def udp(host, port, own, size=4, source=None, broadcast=False):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(PATIENCE_S)
        if broadcast:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if source:
            asked.bind((source, 0))
        asked.sendto(b"x" * size, (host, port))
        while asked.recvfrom(3000)[1][0] == own != host:
            pass  # to everybody is to itself too: that answer is nobody else's


def attempt(how, host, port, own, other):
    try:
        if how == "tcp":
            tcp(host, port)
        elif how == "large":
            udp(host, port, own, size=2900)
        elif how == "forged":
            udp(host, port, own, source=other)
        else:
            udp(host, port, own, broadcast=how == "broadcast")
    except TimeoutError:
        return "timeout"
    except OSError as trouble:
        return errno.errorcode.get(trouble.errno, str(trouble))
    except BaseException as trouble:
        return repr(trouble)
    return "ok"


serve()
print("up", flush=True)
while not os.path.exists("go"):
    select.select([], [], [], 0.05)
with open("flows.json") as file:
    plan = json.load(file)
own, other = plan["facts"]["self"], plan["facts"]["other"]


def tried(flow):
    name, how, host, port, _must = flow
    return json.dumps([name, attempt(how, host, port, own, other)])


with concurrent.futures.ThreadPoolExecutor(8) as pool:  # most of a try is waiting for nothing
    for line in pool.map(tried, plan["flows"]):
        print(line, flush=True)
print("done", flush=True)
signal.pause()
