"""No holding ever passes a limit of its project or of an ancestor (I7); borrowing is fenced."""

from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.quota import Book, QuotaFull, Room, borrowed, reclaimable
from gridlease_scheduler.domain.snapshot import Quota
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scheduler.standing import A100, CATALOGUE, runs

L4 = "L4-24GB"
NAMES = ("p0", "p1", "p2", "p3", "p4")


@st.composite
def trees(draw):
    """A forest: each project's parent comes before it."""
    rows = []
    for at, name in enumerate(NAMES):
        parent = draw(st.sampled_from(("", *NAMES[:at])))
        for chip in draw(st.sampled_from((("",), (A100,), (A100, L4), ("", "A100"), ()))):
            limit = draw(st.integers(0, 8)) * 1_000
            own = draw(st.integers(0, limit // 1_000 if limit else 6)) * 1_000
            rows.append(Quota(name, parent, chip, own, limit))
    return rows


ASKS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from((A100, L4)), st.integers(1, 4)), max_size=30
)


def _sums(quotas, held):
    """What each row counts, from first principles."""
    parents = {x.project: x.parent for x in quotas if x.parent}
    for row in quotas:
        total = 0
        for project, chip, count in held:
            line = project
            while line and line != row.project:
                line = parents.get(line, "")
            if line and row.chip in ("", chip, chip.split("-", maxsplit=1)[0]):
                total += count * 1_000
        yield row, total


@given(trees(), ASKS, st.data())
def test_no_limit_is_ever_passed(quotas, asks, data):
    book, held = Book(quotas, CATALOGUE), []
    for project, chip, count in asks:
        if held and data.draw(st.booleans()):
            gone = held.pop(data.draw(st.integers(0, len(held) - 1)))
            book.hold(gone[0], gone[1], -1_000 * gone[2])
        answer = book.admits(project, chip, 1_000 * count)
        if isinstance(answer, Room):
            book.hold(project, chip, 1_000 * count)
            held.append((project, chip, count))
        else:
            with_it = _sums(quotas, [*held, (project, chip, count)])
            assert any(x.limit_milli and total > x.limit_milli for x, total in with_it)
            assert answer.reason.hint
            assert answer.short_milli > 0
        for row, total in _sums(quotas, held):
            assert not row.limit_milli or total <= row.limit_milli


@given(trees(), ASKS, st.sampled_from(NAMES), st.integers(1, 6))
def test_only_what_is_borrowed_is_taken_back(quotas, asks, owner, count):
    running = [
        runs(f"j{at}", devices=tuple(f"{at}-{i}" for i in range(many)), chip=chip,
             project=project, started_ms=at)
        for at, (project, chip, many) in enumerate(asks)
    ]  # fmt: skip
    book = Book(quotas, CATALOGUE, running)
    taken = reclaimable(book, running, owner, A100, 1_000 * count, Tier.ON_DEMAND)
    mine = set(book.ancestry(owner))
    if taken:
        assert book.held(owner, A100) + 1_000 * count <= book.guaranteed(owner, A100)
    for lease in running:
        if lease.job in taken:
            assert lease.project != owner
            branch = [x for x in book.ancestry(lease.project) if x not in mine]
            assert branch
            own = book.guaranteed(branch[-1], A100)
            assert not own or book.held(branch[-1], A100) > own
    for project in NAMES:
        if all(x.project != project for x in quotas):
            continue
        kept = [x for x in running if x.job not in borrowed(book, running)]
        own = sum(
            x.allocation.quantity_milli
            for x in kept
            if (x.project, x.allocation.chip) == (project, A100)
        )
        assert own <= max(0, book.guaranteed(project, A100))


def test_a_refusal_is_a_value():
    book = Book([Quota("p", "", "", 0, 1_000)], CATALOGUE)
    assert isinstance(book.admits("p", A100, 2_000), QuotaFull)
