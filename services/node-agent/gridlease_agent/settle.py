"""Tells billing what has run and learns how long it may go on: all leases in one call."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping

from gridlease_kernel.faults import Fault

from gridlease_agent.book import Book
from gridlease_agent.domain import lease
from gridlease_agent.domain.lease import Answer
from gridlease_agent.domain.meters import acknowledged
from gridlease_agent.domain.spool import Clocks, Counters, Spool
from gridlease_agent.ports import Billing, Host
from gridlease_agent.runtimes.states import SandboxRunner
from gridlease_agent.tick import tick

_LOG = logging.getLogger(__name__)
_JITTER = 0.1


class Settler:
    """Asks at half the tightest grant, then every ``retry_ms`` until it is answered.

    Between, billing hears every ``report_ms`` what has run: usage is seen within seconds, and
    nothing is renewed by it.
    """

    def __init__(
        self,
        book: Book,
        host: Host,
        sandboxes: SandboxRunner,
        billing: Billing,
        retry_ms: int,
        jitter: random.Random,
        report_ms: int = 0,
    ) -> None:
        self._book = book
        self._host = host
        self._sandboxes = sandboxes
        self._billing = billing
        self._retry_ms = retry_ms
        self._jitter = jitter
        self._next_retry_ms = retry_ms
        self._report_ms = self._next_report_ms = report_ms
        self.asked_ns: int | None = None
        self._silent = False

    def retry_ms(self) -> int:
        """How long to wait after the last question."""
        return self._next_retry_ms

    def report_ms(self) -> int:
        """How long after the last question to tell again what runs; 0 = never."""
        return self._next_report_ms

    async def settle(self) -> None:
        """One question. Without an answer nothing is assumed either way [T 3]."""
        spool = await tick(self._book, self._host, self._sandboxes)
        reports = lease.settle_report(spool)
        if not reports:
            return
        sent = self._host.now()
        self.asked_ns = sent.boottime_ns
        factor = self._jitter.uniform(1 - _JITTER, 1 + _JITTER)
        self._next_retry_ms = round(self._retry_ms * factor)
        self._next_report_ms = round(self._report_ms * factor)
        try:
            answers = await self._billing.settle(spool.spool_id, reports)
        except Fault as fault:
            self._note_silence(fault)
            return
        self._silent = False
        received = self._host.now()
        self._book.settled += 1
        granted = {it.lease_id for it in answers if it.valid_for_ms > 0}
        told = {it.lease_id: it.counters for it in reports if it.lease_id in granted}
        await self._book.change(lambda spool: _answered(spool, sent, received, answers, told))
        for answer in answers:
            if answer.last and not answer.final_acknowledged:
                facts = {"lease": answer.lease_id, "reason": answer.reason}
                _LOG.info("the last grant", extra=facts)

    def _note_silence(self, fault: Fault) -> None:
        if not self._silent:
            _LOG.warning("billing does not answer: %s", fault)
        self._silent = True


def _answered(
    spool: Spool,
    sent: Clocks,
    received: Clocks,
    answers: tuple[Answer, ...],
    told: Mapping[str, Counters],
) -> Spool:
    for answer in answers:
        spool = lease.grant_answer(spool, sent, received, answer)
    return acknowledged(spool, told)
