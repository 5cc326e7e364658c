"""The service that hears all agents: ``python -m tests.bench.telemetry_consumer URL CREDS``.

It decodes every value of every report, keeps the last report of each node and adds up the power,
as an exporter of metrics would.
"""

import asyncio
import contextlib
import dataclasses
import sys
import time
from pathlib import Path

from gridlease_mesh.bus import Bus
from gridlease_mesh.telemetry import TelemetryReader

from tests.bench import children


async def main(url, creds):
    async with await Bus.connect(url, creds=Path(creds), name="metrics") as bus:
        latest = {}
        power_mw = 0

        def on_report(report):
            nonlocal power_mw
            latest[report.node] = report
            power_mw += sum(report.sample.devices.power_mw)

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


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
