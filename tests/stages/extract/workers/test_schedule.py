"""The bookkeeping of shards and workers, whatever workers do."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from egapipe.stages.extract.workers.pool.schedule import Assignment, Schedule


class Workers(RuleBasedStateMachine):
    """Workers that finish, die and come in any order."""

    @initialize(shards=st.integers(0, 12), workers=st.integers(1, 4))
    def begin(self, shards: int, workers: int) -> None:
        self.schedule: Schedule[int] = Schedule(range(shards))
        self.shards = shards
        self.idle = set(range(workers))
        self.busy: dict[int, int] = {}
        self.storing: dict[int, int] = {}
        """Shard -> its worker."""
        self.hired = workers
        self.finished: list[int] = []
        self.relieved: set[int] = set()
        self.losses: Counter[int] = Counter()
        self.resting: set[int] = set()
        self.lost: list[int] = []
        self.now = 0.0

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.idle)))
        work = self.schedule.assign(worker, now=self.now)
        held = [*self.busy.values(), *self.storing]
        waiting = self.shards - len(self.finished) - len(held)
        assert work is not None or waiting == len(self.resting)
        assert work is None or work.shard not in self.resting
        if work is not None:
            assert work.shard not in {*held, *self.finished}
            assert work.upcoming not in {work.shard, *held, *self.finished}
            self.idle.remove(worker)
            self.busy[worker] = work.shard

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def encode(self, data: st.DataObject) -> None:
        """A worker is idle, and stores what it has encoded."""
        worker = data.draw(st.sampled_from(sorted(self.busy)))
        shard = self.busy.pop(worker)
        assert self.schedule.encoded(worker) == shard
        self.storing[shard] = worker
        self.idle.add(worker)

    @precondition(lambda self: self.storing)
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        shard = data.draw(st.sampled_from(sorted(self.storing)))
        assert shard in self.schedule.storing(self.storing.pop(shard))
        self.schedule.stored(shard)
        self.finished.append(shard)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """A worker cannot do its shard, which is put off; it lives."""
        worker = data.draw(st.sampled_from(sorted(self.busy)))
        shard = self.busy.pop(worker)
        self._failed(worker, shard)
        self.idle.add(worker)

    @precondition(lambda self: self.storing)
    @rule(data=st.data())
    def fail_to_store(self, data: st.DataObject) -> None:
        """Whatever the worker does beside it goes on."""
        shard = data.draw(st.sampled_from(sorted(self.storing)))
        self._failed(self.storing.pop(shard), shard)

    def _failed(self, worker: int, shard: int) -> None:
        self.losses[shard] += 1
        assert self.schedule.fail(worker, shard) == self.losses[shard]
        self.schedule.rest(shard, self.now + 1)
        self.resting.add(shard)

    @rule()
    def time_passes(self) -> None:
        self.now += 1
        self.resting.clear()

    @rule(data=st.data(), committed=st.booleans())
    def die(self, data: st.DataObject, committed: bool) -> None:
        """A worker is lost, perhaps just after it had committed what it held."""
        worker = data.draw(st.sampled_from(sorted({*self.idle, *self.busy})))
        self._lose(worker, counted=True)
        for shard in self.lost if committed else ():
            self.schedule.drop(shard)
            self.finished.append(shard)

    @rule(data=st.data())
    def relieve(self, data: st.DataObject) -> None:
        """A slow worker is given up, once a shard; that counts as no loss."""
        slow = sorted({*self.busy, *self.storing.values()})
        if not slow:
            return
        worker = data.draw(st.sampled_from(slow))
        shard = self.busy.get(worker, next((s for s, w in self.storing.items() if w == worker), 0))
        assert self.schedule.relieve(worker) == (shard not in self.relieved)
        if shard not in self.relieved:
            self.relieved.add(shard)
            self._lose(worker, counted=False)

    def _lose(self, worker: int, *, counted: bool) -> None:
        storing = [shard for shard, by in self.storing.items() if by == worker]
        for shard in storing:
            del self.storing[shard]
        self.lost = [self.busy.pop(worker), *storing] if worker in self.busy else storing
        for shard in self.lost:
            self.losses[shard] += counted
        told = [(shard, self.losses[shard]) for shard in self.lost]
        assert self.schedule.lose(worker, counted=counted) == told
        self.idle.discard(worker)
        self.idle.add(self.hired)
        self.hired += 1

    @invariant()
    def nothing_is_lost_or_done_twice(self) -> None:
        assert len(set(self.finished)) == len(self.finished)
        assert self.schedule.unfinished == self.shards - len(self.finished)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_shards_go_out_in_order_with_the_next_one_announced() -> None:
    schedule: Schedule[str] = Schedule([4, 5, 7, 9])
    assert schedule.assign("a") == Assignment(4, upcoming=5)
    assert schedule.assign("b") == Assignment(7, upcoming=9)
    assert schedule.encoded("a") == 4
    assert schedule.assign("a") == Assignment(5, upcoming=None)


def test_an_idle_worker_takes_over_what_another_has_not_begun() -> None:
    schedule: Schedule[str] = Schedule([0, 1])
    schedule.assign("slow")
    assert schedule.assign("fast") == Assignment(1, upcoming=None)
    schedule.encoded("slow")
    assert schedule.assign("slow") is None


def test_a_lost_workers_shards_come_first() -> None:
    schedule: Schedule[str] = Schedule(range(6))
    schedule.assign("a")
    schedule.assign("b")
    assert schedule.lose("a") == [(0, 1)]
    assert schedule.assign("c") == Assignment(0, upcoming=1)


def test_what_a_lost_worker_was_storing_is_lost_too_and_not_suspected() -> None:
    schedule: Schedule[str] = Schedule(range(4))
    for times in (1, 2):
        assert schedule.assign("a") == Assignment(0, upcoming=1)
        assert schedule.encoded("a") == 0
        assert schedule.assign("a") == Assignment(1, upcoming=2)
        assert schedule.lose("a") == [(1, times), (0, times)]
    assert not schedule.suspected(0)
    assert schedule.suspected(1)


def test_what_kills_two_workers_is_isolated_and_so_is_what_they_looked_ahead_to() -> None:
    schedule: Schedule[str] = Schedule(range(4))
    for worker in ("a", "b"):
        assert schedule.assign(worker) == Assignment(0, upcoming=1)
        schedule.lose(worker)
    assert schedule.assign("c") == Assignment(0, upcoming=None, isolated=True)
    assert schedule.assign("d") == Assignment(1, upcoming=None, isolated=True)
    schedule.encoded("c")
    assert schedule.assign("c") == Assignment(2, upcoming=3)


def test_a_loss_that_does_not_count_makes_nothing_suspicious() -> None:
    schedule: Schedule[str] = Schedule(range(2))
    for _ in range(5):
        schedule.assign("a")
        assert schedule.lose("a", counted=False) == [(0, 0)]
    assert schedule.assign("a") == Assignment(0, upcoming=1)


def test_an_image_that_is_known_to_do_harm_is_isolated_at_once() -> None:
    schedule: Schedule[str] = Schedule(range(3))
    schedule.assign("a")
    schedule.suspect(0)
    schedule.lose("a")
    assert schedule.assign("b") == Assignment(0, upcoming=None, isolated=True)


def test_shards_are_left_to_others_that_may_do_better() -> None:
    schedule: Schedule[str] = Schedule(range(3))
    assert schedule.assign("a", avoid={0, 2}) == Assignment(1, upcoming=None)
    assert schedule.assign("b", avoid={1}) == Assignment(0, upcoming=2)
    assert schedule.assign("c", avoid={2}) is None
