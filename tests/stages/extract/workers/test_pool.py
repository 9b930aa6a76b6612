"""The pool with real Ray actors that are killed: every shard is done, and refusals are explained.

The actors import no torch, so a test takes a second or two.
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.errors import (
    EgapipeError,
    MachineError,
    StoreError,
    TeacherError,
    UsageError,
)
from egapipe.pipeline.store import Commit
from tests.stages.extract.processes import workers_below
from tests.stages.extract.workers.actors import FAULTS, actor, committed

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Run:
    """One pool over the orders in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.ticks = 0
        self.hired: list[Any] = []
        self.grounds: list[Any] = []
        """The machines there are at the start, and those once there is a file `leave_after`."""
        self.leave_after = ""
        self.later_cpus: float | None = None
        """What workers after the first ask for, if not the same."""

    def __call__(
        self, shards: list[int], slow: float = 0.0, cpus: float = 1, size: int = 2, **terms: Any
    ) -> list[Commit]:
        from egapipe.stages.extract.workers.pool.pool import Pool
        from egapipe.stages.extract.workers.pool.terms import Terms

        # Patience: a machine that is busy with something else makes no worker late.
        default = Terms(
            minimum=1,
            most=size,
            max_restarts=2,
            wait=60,
            resources=f"{cpus:g} CPU",
            patience=1000,
        )
        with Pool(
            lambda machine, avoid: self.hire(cpus),
            dataclasses.replace(default, **terms),
            arguments=lambda where: (str(self.folder), slow),
            committed=lambda shard: committed(self.folder, shard),
            note=self.noted,
            ground=self.ground,
        ) as pool:
            return list(self.commits(pool.run(shards)))

    def noted(self, text: str) -> None:
        """Whether a worker waited for its machine is a matter of how busy that is."""
        if not text.startswith("waiting for machines"):
            self.notes.append(text)

    def ground(self) -> Any:
        from egapipe.stages.extract.workers.pool.terms import Ground

        left = bool(self.leave_after) and (self.folder / self.leave_after).exists()
        return self.grounds[left] if self.grounds else Ground({})

    def hire(self, cpus: float) -> Any:
        import ray

        if self.leave_after and (self.folder / self.leave_after).exists():
            cpus = 100
        if self.hired and self.later_cpus is not None:
            cpus = self.later_cpus
        self.hired.append(actor(num_cpus=cpus).remote())
        if self.later_cpus is not None and len(self.hired) == 1:
            # The timeout is for the workers that cannot come, not for the one that can.
            ray.get(self.hired[0].__ray_ready__.remote())
        return self.hired[-1]

    def commits(self, answers: Iterator[Commit | None]) -> Iterator[Commit]:
        for answer in answers:
            self.ticks += answer is None
            if answer is not None:
                yield answer

    def order(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def shards_of(commits: list[Commit]) -> list[int]:
    return sorted(commit.shard for commit in commits)


def test_every_shard_is_done_once(run: Run) -> None:
    commits = run(list(range(9)))
    assert shards_of(commits) == list(range(9))
    assert run.notes == []
    assert len(run.hired) == 2


def test_what_a_worker_has_to_say_is_told_with_its_host(run: Run) -> None:
    run.order("say1-1")
    assert shards_of(run([0, 1, 2], size=1)) == [0, 1, 2]
    [note] = run.notes
    assert re.fullmatch(r"worker on \S+: memory is short", note)


def test_no_more_workers_are_hired_than_there_are_shards(run: Run) -> None:
    assert shards_of(run([4], size=6)) == [4]
    assert len(run.hired) == 1


def test_a_dead_worker_is_replaced_and_its_shard_done_by_another(run: Run) -> None:
    run.order("die1-2", "die1-5", "die2-5")
    assert shards_of(run(list(range(8)))) == list(range(8))
    # Three have died, one is left; who is fast decides whether both places are filled at the end.
    assert len(run.hired) in (3 + 1, 3 + 2)
    assert [note.partition(" lost")[0] for note in sorted(run.notes)] == [
        "shard 2",
        "shard 5",
        "shard 5",
    ]
    assert all("another one takes it" in note and "\n" not in note for note in run.notes)


def test_a_shard_that_was_committed_before_the_death_is_not_done_again(run: Run) -> None:
    run.order("late1-0")
    hosts = {commit.shard: commit.host for commit in run([0, 1, 2], size=1)}
    assert hosts == {0: "store", 1: "actor", 2: "actor"}


@pytest.mark.slow  # deaths, and workers in their place
def test_a_worker_that_dies_while_it_stores_loses_that_shard_and_the_next(run: Run) -> None:
    """One worker: beside the shard that it stores it holds the next one, and one ahead, and only
    these two may have killed it by their images."""
    run.order("torn1-1", "torn2-1")
    assert shards_of(run(list(range(5)), size=1)) == list(range(5))
    lost = [note.partition(" (")[0] for note in run.notes]
    assert lost == ["shard 2 lost its worker", "shard 1 lost its worker"] * 2
    assert {path.name for path in run.folder.glob("isolated*")} == {"isolated2", "isolated3"}


def test_a_run_that_ends_names_the_shard_at_work_not_the_one_being_stored(run: Run) -> None:
    run.order("torn1-1", "torn2-1")
    with pytest.raises(EgapipeError, match=r"^shard 2 lost its worker 2 times, more than extract"):
        run(list(range(5)), size=1, max_restarts=1)


def test_a_shard_that_kills_every_worker_ends_the_run_in_one_line(run: Run) -> None:
    run.order("die1-3", "die2-3", "die3-3")
    with pytest.raises(EgapipeError) as error:
        run(list(range(5)))
    text = str(error.value)
    assert text.startswith("shard 3 lost its worker 3 times, more than extract.max_restarts (2)")
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.slow
def test_workers_that_die_at_their_start_are_given_up_too(run: Run) -> None:
    run.order(*(f"stillborn{i}" for i in range(10)))
    with pytest.raises(
        EgapipeError, match=r"[34] workers died while they loaded the teacher"
    ) as error:
        run([0, 1])
    assert "\n" not in str(error.value)


def batches(run: Run) -> set[str]:
    """With which the workers began that have done anything."""
    return {file.read_text() for file in run.folder.glob("ready-*")}


@pytest.mark.parametrize(
    "trouble",
    [
        "",
        # Others that look are waited for.
        pytest.param("lost1", marks=pytest.mark.slow),
        pytest.param("short1", marks=pytest.mark.slow),
    ],
)
def test_one_worker_finds_the_batch_of_all(run: Run, trouble: str) -> None:
    """Each would find another one. If the one that looks dies or gives up, another does."""
    run.order(*filter(None, ["open", trouble]))
    assert shards_of(run(list(range(9)), slow=0.2, size=3, minimum=3)) == list(range(9))
    found = [file for file in run.folder.glob("ready-*") if file.read_text() == "None"]
    assert len(found) == 1
    assert batches(run) == {"None", found[0].name.removeprefix("ready-")}


@pytest.mark.slow  # a worker that is waited for
def test_a_worker_that_looks_for_ever_is_replaced(run: Run) -> None:
    run.order("open", "seeker1")
    assert shards_of(run([0, 1, 2], size=2, minimum=2, start_timeout=2)) == [0, 1, 2]
    assert len(batches(run)) == 2


@pytest.mark.slow  # workers that start again and again
def test_a_few_deaths_at_the_start_are_survived(run: Run) -> None:
    run.order("stillborn1", "stillborn2")
    assert shards_of(run([0, 1])) == [0, 1]
    assert all("died while it loaded the teacher" in note for note in run.notes)


class SpoiledLater(Run):
    """Workers after the first die while they load the teacher, and the first waits for that."""

    def noted(self, text: str) -> None:
        """Whether a worker waited for its machine is a matter of how busy that is."""
        if not text.startswith("waiting for machines"):
            self.notes.append(text)

    def ground(self) -> Any:
        """Room for one worker, and for another one once that is ready."""
        import ray

        from egapipe.stages.extract.workers.pool.terms import Ground

        [machine] = [node["NodeID"] for node in ray.nodes()]
        return Ground({machine: 2 if any(self.folder.glob("ready-*")) else 1})

    def hire(self, cpus: float) -> Any:
        if len(self.hired) == 1:
            self.order(*(f"stillborn{i}" for i in range(10)))
        return super().hire(cpus)

    def commits(self, answers: Iterator[Commit | None]) -> Iterator[Commit]:
        self.order("gate-0")
        for answer in answers:
            if self.notes and self.notes[-1].endswith("the others go on alone"):
                (self.folder / "gate-0").unlink(missing_ok=True)
            if answer is not None:
                yield answer


@pytest.mark.slow
def test_machines_that_come_later_are_used_and_workers_that_cannot_start_stop_no_other(
    tmp_path: Path,
) -> None:
    run = SpoiledLater(tmp_path)
    assert shards_of(run(list(range(4)), most=None)) == list(range(4))
    assert len(run.hired) == 1 + 3
    assert [note.rpartition("; ")[2] for note in run.notes] == [
        "another one is started",
        "another one is started",
        "the others go on alone",
    ]


def test_what_a_worker_refuses_comes_back_as_itself(run: Run) -> None:
    run.order("refuse")
    with pytest.raises(
        TeacherError, match=r"^worker on .*: teacher is not the manifest's: give every host"
    ):
        run([0, 1])


def test_a_bug_keeps_its_traceback(run: Run) -> None:
    run.order("bug-1")
    with pytest.raises(ZeroDivisionError, match=r"(?s)actors\.py.*a bug") as error:
        run([0, 1])
    assert not isinstance(error.value, EgapipeError)


def test_the_run_starts_with_the_workers_that_fit_and_takes_no_more(run: Run) -> None:
    commits = run(list(range(6)), size=5, minimum=2, cpus=3)
    assert shards_of(commits) == list(range(6))
    assert len(run.hired) == 5


def test_too_few_resources_are_explained_after_the_timeout(run: Run) -> None:
    with pytest.raises(UsageError) as error:
        run([0, 1, 2], size=3, minimum=3, cpus=4, wait=1)
    text = str(error.value)
    assert re.match(
        r"[012] of 3 workers have a machine after 1 s: each asks for 4 CPU, free are ", text
    )
    assert "of 8 CPU: lower extract.min_workers" in text
    assert "\n" not in text
    wait_until(lambda: not workers_below(os.getpid(), "Actor"))


@pytest.mark.slow
def test_a_run_that_loses_all_workers_for_good_does_not_wait_for_ever(run: Run) -> None:
    run.order("die1-1")
    run.later_cpus = 100
    with pytest.raises(UsageError, match="0 of 1 workers have a machine after 6 s"):
        run([0, 1, 2], size=1, wait=6)
    assert [note.partition(" lost")[0] for note in run.notes if "lost" in note] == ["shard 1"]


@pytest.mark.slow
def test_the_caller_is_woken_while_workers_are_busy(run: Run) -> None:
    run([0], slow=2.5)
    assert run.ticks >= 2


def test_a_worker_that_holds_up_the_end_is_relieved(run: Run) -> None:
    run.order("hang1-2")
    assert shards_of(run(list(range(7)), minimum=2, patience=2)) == list(range(7))
    [note] = run.notes
    assert re.fullmatch(
        r"shard 2 took \d+ s, others are done in \d+ s at most; another worker takes it", note
    )
    assert len(run.hired) == 2
    wait_until(lambda: not workers_below(os.getpid(), "Actor"))


def test_nobody_is_relieved_while_there_is_something_else_to_do(run: Run) -> None:
    """One worker: it is late with every shard but the first, and goes on."""
    assert shards_of(run(list(range(4)), size=1, slow=0.1, patience=0)) == list(range(4))
    assert run.notes == []


def test_a_relieved_worker_that_had_committed_is_believed(run: Run) -> None:
    """It wrote its shard and did not answer: the record counts, and the shard is not redone."""
    run.order("mute1-3")
    hosts = {c.shard: c.host for c in run(list(range(6)), minimum=2, patience=2)}
    assert hosts == {shard: "store" if shard == 3 else "actor" for shard in range(6)}


@pytest.mark.parametrize("kind", ["network", "machine", "store"])
def test_what_fails_once_is_tried_again(run: Run, kind: str) -> None:
    run.order(f"{kind}1-2")
    assert shards_of(run(list(range(5)))) == list(range(5))
    assert len(run.hired) == 2
    [note] = run.notes
    said = re.escape(str(FAULTS[kind]))
    assert re.fullmatch(rf"shard 2 failed: worker on .*: {said}; it is tried again", note)


@pytest.mark.parametrize("kind", ["network", "store"])
def test_what_cannot_be_stored_once_is_tried_again_beside_what_goes_on(run: Run, kind: str) -> None:
    run.order(f"{kind}1+2")
    assert shards_of(run(list(range(6)), size=1)) == list(range(6))
    assert len(run.hired) == 1
    [note] = run.notes
    said = re.escape(str(FAULTS[kind]))
    assert re.fullmatch(rf"shard 2 failed: worker on .*: {said}; it is tried again", note)


def test_a_broken_device_that_shows_while_a_shard_is_stored_costs_the_worker(run: Run) -> None:
    run.order("device1+1")
    assert shards_of(run(list(range(4)), size=1)) == list(range(4))
    assert len(run.hired) == 2
    assert any("shard 1 lost its worker" in note and "ECC" in note for note in run.notes)


@pytest.mark.slow
def test_what_passes_ends_the_run_only_after_a_few_tries(run: Run) -> None:
    run.order("machine1-1", "machine2-1", "machine3-1")
    with pytest.raises(MachineError, match=r"^shard 1 failed 3 times: worker on .*EIO\)$"):
        run(list(range(3)))


def test_what_is_said_again_ends_the_run_at_once(run: Run) -> None:
    run.order("store1-1", "store2-1")
    with pytest.raises(
        StoreError, match=r"^shard 1 failed 2 times: worker on .*cannot write there$"
    ):
        run(list(range(3)), max_restarts=9)


def test_a_broken_device_costs_its_worker(run: Run) -> None:
    run.order("device1-1")
    assert shards_of(run(list(range(4)))) == list(range(4))
    assert len(run.hired) in (1 + 1, 1 + 2)
    [note] = run.notes
    assert re.fullmatch(
        r"shard 1 lost its worker \(worker on .*ECC.*\); another one takes it", note
    )


def test_the_only_machine_that_breaks_its_workers_ends_the_run(run: Run) -> None:
    """With what it has said, and at once: no other machine is waited for."""
    run.order("device1-0", "device1-1", "device1-2")
    with pytest.raises(EgapipeError, match="ECC") as error:
        run(list(range(4)), size=1, max_restarts=9, machine_failures=3)
    assert "\n" not in str(error.value)
    assert "no further worker is started" in run.notes[-2]


@pytest.mark.slow  # deaths, and workers in their place
def test_a_shard_that_loses_workers_is_isolated_and_so_is_what_was_decoded_ahead(run: Run) -> None:
    """One worker: at shard 0 it looks ahead to 1, whose image may have been what killed it."""
    run.order("die1-0", "die2-0")
    assert shards_of(run(list(range(4)), size=1)) == list(range(4))
    assert sorted(path.name for path in run.folder.glob("isolated*")) == ["isolated0", "isolated1"]


@pytest.mark.slow
def test_a_shard_that_hangs_every_time_does_not_hang_the_run(run: Run) -> None:
    run.order("hang1-1", "hang2-1", "hang3-1")
    with pytest.raises(EgapipeError, match="shard 1 lost its worker 3 times") as error:
        run(list(range(3)), stall_timeout=1.5)
    assert "although its images were decoded in processes of their own" in str(error.value)
    assert "it finished no batch within 1.5 s" in str(error.value)


@pytest.mark.slow
def test_a_second_late_worker_is_relieved_while_the_first_is_dying(run: Run) -> None:
    run.order("hang1-2", "hang1-3")
    commits = run(list(range(12)), size=4, minimum=4, patience=1)
    assert shards_of(commits) == list(range(12))


@pytest.mark.slow
def test_a_worker_that_never_has_its_teacher_is_given_up_and_said_to_be_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egapipe.stages.extract.workers.pool.roster._TELL_SECONDS", 0.3)
    run.order("sleeper1", "sleeper2", "sleeper3")
    with pytest.raises(EgapipeError, match="still loading the teacher after 1 s: raise extract"):
        run([0, 1], size=1, start_timeout=1, machine_failures=2)
    told = [note for note in run.notes if note.startswith("waiting for the teacher: ")]
    assert told
    said = r"0 of 1 workers are ready, \S+ loads the teacher for \d+ s, of 1 at most .*"
    assert re.fullmatch("waiting for the teacher: " + said, told[0])


@pytest.mark.slow
def test_machines_that_are_leaving_get_nothing_more(run: Run) -> None:
    """The only machine is about to go: what is under way is finished, and nothing is begun."""
    import ray

    from egapipe.stages.extract.workers.pool.terms import Ground

    [machine] = [node["NodeID"] for node in ray.nodes()]
    run.grounds = [Ground({machine: 1}), Ground({}, frozenset({machine}))]
    run.leave_after = "shard0"
    # Long enough for the worker that there is to start on a busy machine.
    with pytest.raises(UsageError, match="0 of 1 workers have a machine after 15 s"):
        # The pool looks at its machines every 2 s: the shards take far longer than that.
        run(list(range(20)), size=1, wait=15, slow=0.5)
    assert any("is about to leave the cluster" in note for note in run.notes)
    assert not (run.folder / "shard19").exists()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
