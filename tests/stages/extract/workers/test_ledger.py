"""Which machines are left out."""

from egapipe.stages.extract.workers.failures.ledger import Ledger


def test_a_machine_that_fails_several_workers_is_left_out() -> None:
    ledger = Ledger(3)
    assert [ledger.blame("a") for _ in range(4)] == [False, False, True, False]
    ledger.blame("b")
    assert ledger.left_out == {"a"}


def test_what_would_be_said_again_is_asked_once() -> None:
    ledger = Ledger(3)
    assert ledger.blame("a", lasting=True)
    assert ledger.left_out == {"a"}


def test_the_same_from_another_machine_is_noticed() -> None:
    ledger = Ledger(3)
    assert not ledger.repeated("a", "no module")
    assert not ledger.repeated("a", "no module")
    assert not ledger.repeated("b", "another model")
    assert ledger.repeated("b", "no module")


def test_a_machine_rests_after_a_failure() -> None:
    ledger = Ledger(3)
    ledger.blame("a", until=10)
    assert ledger.rests("a", 9)
    assert not ledger.rests("a", 10)
    assert not ledger.rests("b", 0)


def test_a_shard_that_is_done_elsewhere_was_not_at_fault() -> None:
    ledger = Ledger(1)
    ledger.lost(7, "a")
    assert ledger.finished(7, "b", isolated=False) == ["a"]
    ledger.lost(8, "c")
    assert ledger.finished(8, "c", isolated=False) == []
    ledger.lost(9, "d")
    assert ledger.finished(9, "b", isolated=True) == []
    assert ledger.left_out == {"a"}


def test_a_shard_goes_to_machines_that_have_not_lost_it() -> None:
    ledger = Ledger(9)
    ledger.lost(7, "a")
    assert ledger.elsewhere("a", {"a", "b"}) == {7}
    assert ledger.elsewhere("b", {"a", "b"}) == set()
    assert ledger.elsewhere("a", {"a"}) == set()
    ledger.lost(7, "b")
    assert ledger.elsewhere("a", {"a", "b"}) == set()
