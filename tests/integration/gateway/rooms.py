"""Scripted rooms behind the door: they remember what they were asked and answer from tables."""
# ruff: noqa: N802 - the methods' names are the wire's

from __future__ import annotations

import asyncio
import time

from gridlease.agent.v1 import files_pb2, files_pb2_grpc
from gridlease.billing.v1 import account_pb2, account_pb2_grpc
from gridlease.scheduler.v1 import (
    capacity_pb2,
    capacity_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
)
from gridlease.type.v1 import capacity_pb2 as capacity_types
from gridlease.type.v1 import fleet_pb2 as fleet_types
from gridlease.type.v1 import job_pb2 as job_types
from gridlease.type.v1 import money_pb2
from gridlease_kernel.faults import Conflict, Missing, Unreachable

from tests.integration.gateway.report_room import Receivables, Reports

PRICE_NANO = 36_000_000_000  # an hour of an A100: 10 millions of nano-units a second


class Scheduler(job_pb2_grpc.JobServiceServicer, fleet_pb2_grpc.FleetServiceServicer):
    """Jobs in a dict; a test moves them on with ``set``."""

    def __init__(self):
        self.jobs = {}
        self.by_request = {}
        self.submits = []
        self.changed = asyncio.Event()
        self.stock = [
            fleet_types.Offer(
                chip="cpu-x86-64", site="sites/local", total_milli=8000, free_milli=6000
            ),
            fleet_types.Offer(
                chip="A100-80GB", site="sites/local", total_milli=8000, free_milli=8000,
                memory_bytes=80 << 30, emulated=True,
            ),
        ]  # fmt: skip
        self.down = 0  # so many calls are answered UNAVAILABLE first
        self.events = []

    def _maybe_down(self):
        if self.down > 0:
            self.down -= 1
            raise Unreachable("Starting.", reason="STARTING")

    def set(self, name, state=None, **task):
        job = self.jobs[name]
        if state is not None:
            job.state = state
        for key, value in task.items():
            setattr(job.tasks[0], key, value)
        job.revision += 1
        self.changed.set()
        self.changed = asyncio.Event()

    def _job(self, request):
        job = self.jobs.get(request.name)
        if job is None or not request.name.startswith(request.project + "/"):
            raise Missing("No such job here.", reason="JOB_NOT_FOUND", field="name")
        return job

    async def SubmitJob(self, request, context):
        self._maybe_down()
        self.submits.append(request)
        key = (request.project, request.request_id)
        known = self.by_request.get(key)
        if known is not None:
            if known[0] != request.spec.SerializeToString(deterministic=True):
                raise Conflict("Another body.", reason="REQUEST_ID_REUSED", field="request_id")
            return job_pb2.SubmitJobResponse(job=self.jobs[known[1]])
        name = f"{request.project}/jobs/{request.spec.display_name or 'job'}-{len(self.jobs)}"
        job = job_types.Job(
            name=name, spec=request.spec, state=job_types.JOB_STATE_PENDING, revision=1
        )
        job.tasks.add(name=f"{name}/tasks/0", index=0, attempt=1)
        job.create_time.FromNanoseconds(time.time_ns())
        self.jobs[name] = job
        self.by_request[key] = (request.spec.SerializeToString(deterministic=True), name)
        return job_pb2.SubmitJobResponse(job=job)

    async def GetJob(self, request, context):
        self._maybe_down()
        return job_pb2.GetJobResponse(job=self._job(request))

    async def ListJobs(self, request, context):
        mine = [it for name, it in self.jobs.items() if name.startswith(request.project + "/")]
        return job_pb2.ListJobsResponse(jobs=mine)

    async def WakeJob(self, request, context):
        return job_pb2.WakeJobResponse(job=self._job(request))

    async def CancelJob(self, request, context):
        job = self._job(request)
        self.set(job.name, job_types.JOB_STATE_CANCELLED)
        return job_pb2.CancelJobResponse(job=job)

    async def ExplainJob(self, request, context):
        job = self._job(request)
        reason = job_types.Reason(code="NO_SUCH_CHIP", message="No node has it.", hint="Add one.")
        return job_pb2.ExplainJobResponse(
            state=job.state, reason=reason, nodes_ruled_out={"NO_SUCH_CHIP": 3}
        )

    async def WatchJob(self, request, context):
        seen = 0
        while True:
            self._maybe_down()
            changed = self.changed
            job = self._job(request)
            if job.revision > seen:
                seen = job.revision
                yield job_pb2.WatchJobResponse(job=job)
            if job.state >= job_types.JOB_STATE_SUCCEEDED:
                return
            await changed.wait()

    async def ListEvents(self, request, context):
        return job_pb2.ListEventsResponse(
            events=[it for it in self.events if request.project in ("", it.project)]
        )

    async def WatchEvents(self, request, context):
        for event in list(self.events):
            if event.sequence > request.after_sequence:
                self._maybe_down()
                yield job_pb2.WatchEventsResponse(event=event)

    async def ListNodes(self, request, context):
        node = fleet_types.Node(name="nodes/n1", state=fleet_types.NODE_STATE_READY)
        node.inventory.cpu_chip = "cpu-x86-64"
        node.inventory.emulated = True
        return fleet_pb2.ListNodesResponse(nodes=[node])

    async def GetNode(self, request, context):
        raise Missing("No such node.", reason="NODE_NOT_FOUND")

    async def ListStock(self, request, context):
        self._maybe_down()
        chip = {"chip": "A100-80GB", "idle_mw": 50_000, "peak_mw": 400_000, "source": "a sheet"}
        site = {"site": "sites/local", "pue_milli": 1_200, "carbon_mg_per_kwh": [400_000]}
        other = {"site": "sites/other", "pue_milli": 1_900}
        return fleet_pb2.ListStockResponse(offers=self.stock, chips=[chip], sites=[site, other])

    async def CreateNodeToken(self, request, context):
        return fleet_pb2.CreateNodeTokenResponse(token="t" * 40, node="nodes/n2")

    async def EnrolNode(self, request, context):
        return fleet_pb2.EnrolNodeResponse(node_id="n2", nats_url="nats://x", subject_prefix="gl")

    async def CordonNode(self, request, context):
        node = fleet_types.Node(name=request.name, state=fleet_types.NODE_STATE_CORDONED)
        return fleet_pb2.CordonNodeResponse(node=node)

    async def DrainNode(self, request, context):
        node = fleet_types.Node(name=request.name, state=fleet_types.NODE_STATE_DRAINING)
        return fleet_pb2.DrainNodeResponse(node=node, jobs=list(self.jobs))

    async def SetNodeTopology(self, request, context):
        raise Missing("No such node.", reason="NODE_NOT_FOUND")

    async def PlanJob(self, request, context):
        self.submits.append(request)
        reason = job_types.Reason(code="CHIP_BUSY", message="All are held.", hint="Wait.")
        answer = job_pb2.PlanJobResponse(reason=reason, currency="USD", remedies=["Wait."])
        answer.options.add(
            chip="A100-80GB", rate_nano_per_hour=PRICE_NANO, currency="USD", asked_for=True
        )
        return answer

    async def RevokeNode(self, request, context):
        return fleet_pb2.RevokeNodeResponse(node=fleet_types.Node(name=request.name))


class Capacity(capacity_pb2_grpc.CapacityServiceServicer):
    """Quotas and reservations in dicts; the other lists are empty."""

    def __init__(self):
        self.quotas = {}
        self.links = {}
        self.reservations = {}

    async def ListQuotas(self, request, context):
        mine = [it for it in self.quotas.values() if request.project in ("", it.project)]
        return capacity_pb2.ListQuotasResponse(quotas=mine)

    async def SetQuota(self, request, context):
        self.quotas[request.quota.project, request.quota.chip] = request.quota
        return capacity_pb2.SetQuotaResponse(quota=request.quota)

    async def ListSites(self, request, context):
        return capacity_pb2.ListSitesResponse(sites=[capacity_types.Site(name="sites/local")])

    async def SetSite(self, request, context):
        return capacity_pb2.SetSiteResponse(site=request.site)

    async def ListLinks(self, request, context):
        return capacity_pb2.ListLinksResponse(links=self.links.values())

    async def SetLink(self, request, context):
        self.links[request.link.name] = request.link
        return capacity_pb2.SetLinkResponse(link=request.link)

    async def ListShares(self, request, context):
        return capacity_pb2.ListSharesResponse()

    async def SetShare(self, request, context):
        return capacity_pb2.SetShareResponse(share=request.share)

    async def ListReservations(self, request, context):
        mine = [it for it in self.reservations.values() if request.project in ("", it.project)]
        return capacity_pb2.ListReservationsResponse(reservations=mine)

    async def CreateReservation(self, request, context):
        made = request.reservation
        made.name = f"reservations/rs-{len(self.reservations)}"
        self.reservations[made.name] = made
        return capacity_pb2.CreateReservationResponse(reservation=made)

    async def CancelReservation(self, request, context):
        found = self.reservations.get(request.name)
        if found is None or request.project not in ("", found.project):
            raise Missing("No such reservation.", reason="RESERVATION_NOT_FOUND", field="name")
        return capacity_pb2.CancelReservationResponse(reservation=found)


class Billing(account_pb2_grpc.AccountServiceServicer):
    """A price book of two chips, credits by request id, one invoice."""

    def __init__(self):
        self.credits = {}
        self.down = 0
        self.reports = Reports()
        self.receivables = Receivables()

    def _price(self, chip, tier=job_types.TIER_ON_DEMAND):
        nano = {"A100-80GB": PRICE_NANO, "H100-80GB": 2 * PRICE_NANO, "cpu-x86-64": 3_600_000_000}
        return money_pb2.Price(
            version=1, chip=chip, tier=tier, price_nano_per_hour=nano[chip], currency="USD"
        )

    async def GetQuote(self, request, context):
        price = self._price(request.chip)
        rate = price.price_nano_per_hour * request.quantity_milli // 1000
        return account_pb2.GetQuoteResponse(
            quote=money_pb2.Quote(
                chip=request.chip, tier=request.tier, quantity_milli=request.quantity_milli,
                rate_nano_per_hour=rate, amount_nano=rate * request.duration_ms // 3_600_000,
                duration_ms=request.duration_ms, hold_nano=rate * 150_000 // 3_600_000,
                currency="USD", price_version=1,
                uses=[
                    {"basis": "ESTIMATED", "site": it.site, "energy_mj": request.power.peak_mw}
                    for it in request.sites
                ],
            )
        )  # fmt: skip

    async def ListPrices(self, request, context):
        chips = ("A100-80GB", "H100-80GB", "cpu-x86-64")
        return account_pb2.ListPricesResponse(prices=[self._price(it) for it in chips])

    async def CreatePrice(self, request, context):
        price = money_pb2.Price(
            version=2, chip=request.chip, tier=request.tier,
            price_nano_per_hour=request.price_nano_per_hour, currency="USD",
        )  # fmt: skip
        return account_pb2.CreatePriceResponse(price=price)

    async def ListPriorityMultipliers(self, request, context):
        return account_pb2.ListPriorityMultipliersResponse()

    async def CreatePriorityMultipliers(self, request, context):
        made = money_pb2.PriorityMultipliers(version=1, bands=request.bands)
        return account_pb2.CreatePriorityMultipliersResponse(table=made)

    async def CreateCredit(self, request, context):
        if self.down > 0:
            self.down -= 1
            raise Unreachable("Starting.", reason="STARTING")
        self.credits.setdefault(request.request_id, (request.tenant, request.amount_nano))
        return account_pb2.CreateCreditResponse(balance=self._balance(request.tenant))

    def _balance(self, tenant):
        total = sum(amount for owner, amount in self.credits.values() if owner == tenant)
        return money_pb2.Balance(
            tenant=tenant, currency="USD", posted_nano=total, available_nano=total
        )

    async def GetBalance(self, request, context):
        return account_pb2.GetBalanceResponse(balance=self._balance(request.tenant))

    async def ListUsage(self, request, context):
        line = money_pb2.UsageLine(
            lease="ls-1", job=request.job, segment=1, meter="run", chip="cpu-x86-64",
            charged_ns=1_500_000_000, amount_nano=1_500_000, currency="USD", lease_state="FINAL",
        )  # fmt: skip
        return account_pb2.ListUsageResponse(lines=[line])

    def _invoice(self, request):
        return money_pb2.Invoice(
            name="invoices/i-1", number="GL-2026-000001", tenant="tenants/demo",
            project="projects/demo", total_nano=1_500_000, payable_nano=0, currency="USD",
        )  # fmt: skip

    def _own(self, request):
        if request.name != "invoices/i-1" or request.tenant != "tenants/demo":
            raise Missing("Nothing here.", reason="INVOICE_NOT_FOUND")
        return self._invoice(request)

    async def CreateInvoice(self, request, context):
        return account_pb2.CreateInvoiceResponse(invoice=self._invoice(request))

    async def GetInvoice(self, request, context):
        return account_pb2.GetInvoiceResponse(invoice=self._own(request))

    async def ListInvoices(self, request, context):
        return account_pb2.ListInvoicesResponse(invoices=[self._invoice(request)])

    async def RenderInvoice(self, request, context):
        self._own(request)
        return account_pb2.RenderInvoiceResponse(
            content=b"%PDF-", media_type="application/pdf", file_name="GL-2026-000001.pdf"
        )

    async def FinalizeInvoice(self, request, context):
        return account_pb2.FinalizeInvoiceResponse(invoice=self._own(request))

    async def CreateCreditNote(self, request, context):
        note = self._own(request)
        note.kind, note.cites = "CREDIT_NOTE", request.name
        return account_pb2.CreateCreditNoteResponse(invoice=note)

    async def ListMeterReports(self, request, context):
        self._own(request)
        return account_pb2.ListMeterReportsResponse()

    async def GetTaxProfile(self, request, context):
        profile = money_pb2.TaxProfile(tenant=request.tenant, country="DE")
        return account_pb2.GetTaxProfileResponse(profile=profile)

    async def SetTaxProfile(self, request, context):
        return account_pb2.SetTaxProfileResponse(profile=request.profile)

    async def ListLegalEntities(self, request, context):
        found = money_pb2.LegalEntity(entity="default", prefix="GL")
        return account_pb2.ListLegalEntitiesResponse(entities=[found])

    async def SetLegalEntity(self, request, context):
        return account_pb2.SetLegalEntityResponse(entity=request.entity)

    async def ListTaxRates(self, request, context):
        return account_pb2.ListTaxRatesResponse()

    async def CreateTaxRate(self, request, context):
        return account_pb2.CreateTaxRateResponse(rate=request.rate)

    async def GetJournalSummary(self, request, context):
        return account_pb2.GetJournalSummaryResponse(sum_nano=0, journal_count=1, entry_count=2)


class Agent(files_pb2_grpc.TaskFileServiceServicer):
    """One lease's output, which a test lets grow; it may fail after so many bytes."""

    def __init__(self):
        self.logs = {}
        self.ended = set()
        self.grown = asyncio.Event()
        self.fail_at = []
        self.artefacts = {}

    def grow(self, lease, content=b"", end=False):
        self.logs[lease] = self.logs.get(lease, b"") + content
        if end:
            self.ended.add(lease)
        self.grown.set()
        self.grown = asyncio.Event()

    async def ReadLogs(self, request, context):
        at = request.offset_bytes
        while True:
            grown = self.grown
            if request.lease not in self.logs:
                raise Missing("No such lease here.", reason="LEASE_NOT_FOUND")
            output = self.logs[request.lease]
            while at < len(output):
                piece = output[at : at + 10]
                if self.fail_at and at >= self.fail_at[0]:
                    self.fail_at.pop(0)
                    raise Unreachable("Restarting.", reason="STARTING")
                at += len(piece)
                yield files_pb2.ReadLogsResponse(content=piece, next_offset_bytes=at)
            if request.lease in self.ended or not request.follow:
                return
            await grown.wait()

    async def ListArtefacts(self, request, context):
        return files_pb2.ListArtefactsResponse(
            artefacts=[
                files_pb2.Artefact(path=path, size_bytes=len(content))
                for path, content in self.artefacts.items()
            ]
        )

    async def ReadArtefact(self, request, context):
        content = self.artefacts.get(request.path)
        if content is None:
            raise Missing("No such artefact.", reason="ARTEFACT_NOT_FOUND", field="path")
        for at in range(0, len(content), 10):
            if self.fail_at and at >= self.fail_at[0]:
                self.fail_at.pop(0)
                raise Unreachable("Restarting.", reason="STARTING")
            yield files_pb2.ReadArtefactResponse(content=content[at : at + 10])
