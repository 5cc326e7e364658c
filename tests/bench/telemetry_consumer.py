"""The service that hears all agents: ``… telemetry_consumer URL CREDS EAGER``.

It checks and counts every report and keeps each node's last; every 15 s, or of every report where
EAGER is 1, it reads every value: as an exporter of metrics would when it is scraped.
"""

import asyncio
import contextlib
import dataclasses
import sys
import time
from pathlib import Path

from gridlease_mesh.bus import Bus
from gridlease_mesh.telemetry import TelemetryReader
from gridlease_mesh.telemetry_wire import BulkWire

from tests.bench import children

_SCRAPE_S = 15.0


async def main(url, creds, eager):
    loop = asyncio.get_running_loop()
    latest, readings = {}, {}

    def on_report(report):
        latest[report.node] = report
        if eager:
            readings[report.node] = report.sample

    def scrape():
        nonlocal timer
        timer = loop.call_later(_SCRAPE_S, scrape)
        for node, report in latest.items():
            readings[node] = report.sample

    timer = loop.call_later(_SCRAPE_S, scrape)
    wire = await BulkWire.connect(url, creds=Path(creds), name="metrics")
    async with Bus(wire, name="metrics") as bus:
        reader = TelemetryReader(bus, on_report)
        await bus.flush()
        children.say(ready=True)
        async for _ in children.commands():
            children.say(
                cpu_s=time.process_time(),
                nodes=len(latest),
                **dataclasses.asdict(reader.total()),
            )
        reader.close()
        timer.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        where, credentials, every = sys.argv[1:]
        asyncio.run(main(where, credentials, every == "1"))
