"""One worker of a kind finds the batch, and all of that kind have it."""

from hypothesis import given
from hypothesis import strategies as st

from egapipe.stages.extract.workers.pool.agreement import Agreement, Word

A, B = {"device": "cuda A"}, {"device": "cuda B"}


def test_the_first_of_a_kind_looks_and_the_others_wait() -> None:
    agreement: Agreement[str] = Agreement()
    assert agreement.come("one", A, None) == [Word("one", None)]
    assert agreement.come("two", A, None) == []
    assert agreement.come("other", B, None) == [Word("other", None)]
    assert agreement.find("one", 64) == [Word("two", 64)]
    # One that comes later begins with it at once.
    assert agreement.come("late", A, None) == [Word("late", 64)]
    assert agreement.find("other", 8) == []
    assert agreement.come("last", B, None) == [Word("last", 8)]


def test_what_is_settled_keeps_nobody_waiting() -> None:
    agreement: Agreement[str] = Agreement()
    assert agreement.come("one", A, 128) == [Word("one", 128)]
    assert agreement.come("two", A, 128) == [Word("two", 128)]
    assert agreement.find("one", 128) == []
    assert agreement.leave("one") == []


@given(st.data())
def test_nobody_waits_for_ever_and_all_have_one_batch(data: st.DataObject) -> None:
    """Whoever comes, finds or dies in whatever order."""
    agreement: Agreement[int] = Agreement()
    looking, begun, alive = set[int](), dict[int, int](), set[int]()

    def hear(words: list[Word[int]]) -> None:
        for worker, batch in words:
            assert worker in alive
            assert worker not in looking | begun.keys()
            if batch is None:
                looking.add(worker)
            else:
                begun[worker] = batch

    for worker in range(data.draw(st.integers(1, 8))):
        alive.add(worker)
        hear(agreement.come(worker, A, None))
        for dead in data.draw(st.lists(st.sampled_from(range(worker + 1)), unique=True)):
            if dead in alive:
                alive.discard(dead)
                looking.discard(dead)
                begun.pop(dead, None)
                hear(agreement.leave(dead))
        if looking and data.draw(st.booleans()):
            [finder] = looking
            looking.clear()
            begun[finder] = 100 + finder
            hear(agreement.find(finder, 100 + finder))
        assert len(looking) <= 1
        assert bool(looking) or alive == begun.keys()
    assert len(set(begun.values())) <= 1
