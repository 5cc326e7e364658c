"""Metrics of calls for Prometheus: rate, errors and duration of each method, on one address."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from gridlease_kernel.faults import Precondition
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server

from gridlease_mesh.observe import LISTEN, Rows, Side, split

# Source: OpenTelemetry semantic conventions, advice for rpc.*.duration; seconds.
_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_METHOD = ("rpc_service", "rpc_method")


class PrometheusMeters:
    """``rpc.<side>.call.duration``, and how many calls run now."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._durations = {side: self._histogram(side) for side in Side}
        self._running = {side: self._gauge(side) for side in Side}
        self._levels: dict[str, Gauge] = {}
        self._stop_serving: Callable[[], None] = lambda: None
        self.port = 0

    def serve(self, host: str, port: int) -> None:
        """Answer scrapes, in a thread of its own; ``port`` says where.

        Raises:
            Precondition: METRICS_PORT_TAKEN.
        """
        try:
            server, _thread = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            raise Precondition(
                f"Cannot serve metrics on {host}:{port}: {error.strerror}.",
                reason="METRICS_PORT_TAKEN",
                field=LISTEN,
                remedy="Stop what listens there, or set another address.",
            ) from error
        self.port = server.server_port

        def stop() -> None:
            server.shutdown()
            server.server_close()

        self._stop_serving = stop

    def begun(self, side: Side, path: str) -> None:
        self._running[side].labels(*split(path)).inc()

    def ended(self, side: Side, path: str, code: grpc.StatusCode, span_s: float) -> None:
        service, method = split(path)
        self._running[side].labels(service, method).dec()
        self._durations[side].labels(service, method, code.name).observe(span_s)

    def levels(self, name: str, rows: Rows) -> None:
        known = self._levels.get(name)
        if known is None:
            if not rows:
                return
            words = f"{name.replace('_', ' ')}, as last looked at."
            known = Gauge(name, words, tuple(rows[0][0]), registry=self.registry)
            self._levels[name] = known
        if any(labels for labels, _ in rows) or not rows:
            known.clear()
        for labels, value in rows:
            (known.labels(**labels) if labels else known).set(value)

    def close(self) -> None:
        self._stop_serving()

    def _histogram(self, side: Side) -> Histogram:
        return Histogram(
            f"rpc_{side.value}_call_duration_seconds",
            f"Duration of calls, {side.value} side.",
            (*_METHOD, "rpc_grpc_status_code"),
            buckets=_BOUNDS_S,
            registry=self.registry,
        )

    def _gauge(self, side: Side) -> Gauge:
        name = f"rpc_{side.value}_calls_in_flight"
        return Gauge(name, f"Calls that run, {side.value} side.", _METHOD, registry=self.registry)


def serving(host: str, port: int) -> PrometheusMeters:
    """Meters that can be scraped.

    Raises:
        Precondition: METRICS_PORT_TAKEN.
    """
    meters = PrometheusMeters()
    meters.serve(host, port)
    return meters
