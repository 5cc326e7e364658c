"""Credit is a tenant's, a budget a job's, over all that one call does."""

from gridlease_billing.domain.grant_row import Ask, Funds
from gridlease_billing.domain.means import Means


def test_what_one_lease_takes_the_next_has_not():
    one = Ask("a", job="j", tenant="t", budget_nano=50)
    other = Ask("b", job="k", tenant="t")
    means = Means({"t": 100}, {"j": 10})
    assert means.funds(one) == Funds(100, 40)
    left = means.less(one, 30)
    assert left.funds(one) == Funds(70, 10)
    assert left.funds(other) == Funds(70, None)
    assert left.funds(Ask("c", tenant="u")) == Funds(0, None)
    assert means.less(one, 0) is means
