"""What tenants and jobs may still spend, while a call is being decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gridlease_billing.domain.grant_row import Ask, Funds


@dataclass(frozen=True, slots=True)
class Means:
    """``credit_nano``: what each tenant has available; ``spent_nano``: charges and holds of each
    job that has a budget; ``overdue``: what tenants that get no new grants would have to pay."""

    credit_nano: Mapping[str, int]
    spent_nano: Mapping[str, int]
    overdue: Mapping[str, str] = field(default_factory=dict)

    def funds(self, ask: Ask) -> Funds:
        """The means of one lease's tenant and job."""
        credit = self.credit_nano.get(ask.tenant, 0)
        overdue = self.overdue.get(ask.tenant, "")
        if ask.budget_nano is None:
            return Funds(credit, None, overdue)
        return Funds(credit, ask.budget_nano - self.spent_nano.get(ask.job, 0), overdue)

    def less(self, ask: Ask, nano: int) -> Means:
        """What is left once a lease's tenant and job have spent or held ``nano`` more."""
        if not nano:
            return self
        return Means(
            {**self.credit_nano, ask.tenant: self.credit_nano.get(ask.tenant, 0) - nano},
            {**self.spent_nano, ask.job: self.spent_nano.get(ask.job, 0) + nano},
            self.overdue,
        )
