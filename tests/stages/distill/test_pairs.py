"""Pairs of a data set: edges between rows, batches in which they meet, and whose run it is."""

import multiprocessing
import re
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder, run_identity
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.rows.links import Links, check_one_file, open_links
from egapipe.stages.distill.objectives.shared.edges import Joined, edges_joined
from egapipe.stages.distill.setup import Job, prepare
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.pairs import Pair, write_pairs
from tests.stages.distill.test_resume import train
from tests.stages.distill.test_training import assert_same_weights, weights

CPU = torch.device("cpu")
ALONE = World.alone(CPU)
ROWS = 1437
USED = [
    *("distill.sampler=pairs", "distill.edges=pairs", "distill.objective={lsp: {kernel: cosine}}"),
    *("distill.batch_size=200", "distill.ema_decay=null"),
]
Make = Callable[..., Config]


def key(row: int) -> str:
    return f"digits/{row:04d}"


def pairs_of(count: int, seed: int = 0) -> list[Pair]:
    """So many different pairs of rows, of which each is in a few."""
    drawn = np.random.default_rng(seed).integers(0, ROWS, (2 * count, 2))
    chosen = dict.fromkeys((int(a), int(b)) for a, b in drawn if a != b)
    return [(key(a), key(b)) for a, b in [*chosen][:count]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pairs = pairs_of(2000)
    return write_pairs(tmp_path / "pairs.parquet", pairs, [i % 5 - 1.0 for i in range(len(pairs))])


@pytest.fixture
def make(quick: MakeConfig, file: Path) -> Make:
    return lambda *sets: quick(f"dataset.pairs={file}", *USED, *sets)


# ----------------------------------------------------------------------------------------- edges


@given(
    st.lists(st.integers(0, 9), max_size=20),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(-9, 9, width=32))),
)
def test_edges_of_a_batch_are_those_whose_rows_it_has(
    rows: list[int], edges: list[tuple[int, int, float]]
) -> None:
    """As often as both come up."""
    edges = sorted(edges)
    first = torch.tensor([edge[0] for edge in edges], dtype=torch.int64)
    joined = Joined(
        torch.searchsorted(first, torch.arange(11)),
        torch.tensor([edge[1] for edge in edges], dtype=torch.int64),
        torch.tensor([edge[2] for edge in edges], dtype=torch.float32),
    )
    found = edges_joined(torch.tensor(rows, dtype=torch.int64), joined)
    expected = [
        (source, target, score)
        for source, one in enumerate(rows)
        for target, other in enumerate(rows)
        for a, b, score in edges
        if (a, b) == (one, other)
    ]
    assert found.scores is not None
    columns = (found.source.tolist(), found.target.tolist(), found.scores.tolist())
    assert Counter(zip(*columns, strict=True)) == Counter(expected)


def seen_edges(job: Job, batch: Batch) -> Counter[tuple[str, str, float]]:
    """Of the pair that objectives see of a batch, by keys."""
    seen = []
    objective = job.model.objective.objectives["lsp"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "forward", lambda pair: seen.append(pair) or pair.student.sum())
        job.model(batch)
    [pair] = seen
    assert pair.edge_scores is not None
    keys = [key(row) for row in batch.rows.tolist()]
    columns = (pair.edges.source.tolist(), pair.edges.target.tolist(), pair.edge_scores.tolist())
    return Counter((keys[a], keys[b], score) for a, b, score in zip(*columns, strict=True))


@pytest.mark.parametrize("scored", [True, False])
def test_pairs_are_the_edges_that_objectives_see(make: Make, file: Path, scored: bool) -> None:
    pairs = pairs_of(2000)
    scores = [i % 5 - 1.0 if scored else 1.0 for i in range(len(pairs))]
    write_pairs(file, pairs, scores if scored else None)
    job = prepare(make(), ALONE)
    batches = list(job.loader.epoch(0))
    for batch in batches[:3]:
        there = {key(row) for row in batch.rows.tolist()}
        expected = [
            (*pair, score) for pair, score in zip(pairs, scores, strict=True) if there >= {*pair}
        ]
        assert len(expected) > 100
        assert seen_edges(job, batch) == Counter(expected)


def test_the_nearest_rows_have_edges_of_one_score(make: Make) -> None:
    job = prepare(make("distill.edges={of: nearest, nearest: 3}"), ALONE)
    assert job.model.neighbours is not None
    assert job.model.joined_starts is None
    scores = {score for *_, score in seen_edges(job, next(job.loader.epoch(0)))}
    assert scores == {1.0}


def test_edges_are_no_part_of_a_checkpoint(make: Make) -> None:
    model = prepare(make(), ALONE).model
    assert model.neighbours is None
    assert not any(name.startswith("joined") for name in model.state_dict())
    assert {"joined_starts", "joined_targets", "joined_scores"} <= set(model.replicated)


def test_rows_come_to_be_as_near_as_the_teacher_has_those_that_pairs_join(make: Make) -> None:
    """The local divergence over given edges falls, more than beside cross-entropy alone."""
    ends = {}
    for weight in (0.0, 3000.0):
        lsp = f"distill.objective={{lsp: {{weight: {weight}, kernel: cosine}}}}"
        run = distill.run(make(lsp, "distill.epochs=6", "distill.batch_size=64")).run
        ends[weight] = read_metrics(RunFolder(run))[-1]["train/lsp"]
    assert ends[3000.0] < 0.7 * ends[0.0]


# -------------------------------------------------------------------------- what a file may hold


class Listed:
    """As much of a data set as pairs look at."""

    def __init__(self, name: str, keys: list[str]) -> None:
        self.name, self.keys = name, keys

    def __len__(self) -> int:
        return len(self.keys)


def opened(file: Path, *keys: list[str], learned: list[bool] | None = None) -> Links:
    datasets: list[Any] = [Listed(f"set{number}", one) for number, one in enumerate(keys)]
    count = sum(map(len, keys))
    return open_links(str(file), datasets, np.array(learned or [True] * count))


def test_keys_are_those_of_all_images_to_learn_from(tmp_path: Path) -> None:
    pairs = [("b", "x"), ("y", "a"), ("a", "b")]
    links = opened(write_pairs(tmp_path / "p", pairs, [1, 2, 3]), ["a", "b"], ["x", "y"])
    columns = (links.sources.tolist(), links.targets.tolist(), links.scores.tolist())
    assert list(zip(*columns, strict=True)) == [(0, 1, 3), (1, 2, 1), (3, 0, 2)]
    assert links.starts.tolist() == [0, 1, 2, 2, 3]


def test_many_keys_are_looked_through_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egapipe.stages.distill.data.rows.links._KEYS", 3)
    keys = [str(number) for number in range(20)]
    pairs = [(str(a), str((7 * a + 3) % 20)) for a in range(20)]
    links = opened(write_pairs(tmp_path / "p", pairs), keys[:11], keys[11:])
    assert links.sources.tolist() == list(range(20))
    assert links.targets.tolist() == [(7 * a + 3) % 20 for a in range(20)]


def test_what_is_no_edge_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [("a", "b"), ("a", "z"), ("z", "y"), ("a", "a"), ("a", "b"), ("c", "a"), ("b", "a")]
    file = write_pairs(tmp_path / "p", pairs)
    links = opened(file, ["a", "b", "c"], learned=[True, True, False])
    assert links.sources.tolist() == [0, 1]
    assert links.targets.tolist() == [1, 0]
    [line] = caplog.messages
    assert line == (
        f"dataset.pairs: {file}: of its 7 pairs are left out 2 with a key that no row to learn "
        "from has, 1 of an image that failed, or is held out, 1 of a row with itself, 1 that "
        "are there before"
    )


def test_of_pairs_without_fault_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(write_pairs(tmp_path / "p", [("a", "b"), ("b", "a")]), ["a", "b"])
    assert caplog.messages == []


def test_the_order_of_pairs_changes_no_edge(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("c", "a"), ("a", "c"), ("b", "c")]
    one = opened(write_pairs(tmp_path / "p", pairs, range(4)), ["a", "b", "c"])
    turned = write_pairs(tmp_path / "q", pairs[::-1], range(3, -1, -1))
    other = opened(turned, ["a", "b", "c"])
    for name in ("starts", "targets", "scores"):
        assert (getattr(one, name) == getattr(other, name)).all()


@pytest.mark.parametrize(
    ("pairs", "scores", "said"),
    [
        ([("z", "y")], None, r"joins no two rows .* are 1 with a key .* keys such as 'a'"),
        (
            [("a", "a")],
            None,
            "joins no two rows to learn from: of its pairs are 1 of a row with itself",
        ),
        ([("a", "c"), ("c", "a")], None, "2 of an image that failed, or is held out"),
        (
            [("a", "b"), ("b", "a"), ("a", "b")],
            [1, 2, 3],
            "rows 0 and 2 are the same pair with two",
        ),
        ([("twin", "a")], None, "the key 'twin' is that of two rows, one of set1"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    tmp_path: Path, pairs: list[Pair], scores: list[float] | None, said: str
) -> None:
    file = write_pairs(tmp_path / "p", pairs, scores)
    learned = [True, True, False, True, True]
    with pytest.raises(UsageError, match=said) as caught:
        opened(file, ["a", "b", "c", "twin"], ["twin"], learned=learned)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"dataset.pairs: {file}")


def test_a_key_of_two_rows_that_no_pair_names_is_no_fault(tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "p", [("a", "b")])
    assert len(opened(file, ["a", "b", "twin"], ["twin"]).targets) == 1


@pytest.mark.parametrize("key", ["distill.sampler=pairs", "distill.edges=pairs"])
def test_pairs_are_asked_for_where_there_is_a_file(quick: MakeConfig, key: str) -> None:
    with pytest.raises(UsageError, match=r"is pairs: name the file of them in dataset\.pairs"):
        quick(key)


def test_a_wrong_kind_of_edge_is_refused(quick: MakeConfig) -> None:
    with pytest.raises(UsageError, match=r"distill\.edges\.of must be 'nearest' or 'pairs'"):
        quick("distill.edges=pears")


def test_unlabelled_rows_by_a_ratio_have_no_pairs(make: Make) -> None:
    with pytest.raises(UsageError, match="sampler pairs groups labelled and unlabelled"):
        make("distill.unlabelled_ratio=1")


# ------------------------------------------------------------------------------------ the sampler


def test_no_training_sees_a_pair_that_is_held_out(make: Make) -> None:
    """Each row that is left comes once an epoch, but for the remainder; most pairs meet."""
    config = make("dataset.validation={fraction: 0.2}", "distill.batch_size=64")
    job = prepare(config, ALONE)
    links, held = job.sources.links, job.sources.held_out
    assert links is not None
    assert not {*links.sources.tolist(), *links.targets.tolist()} & {*held.tolist()}
    drawn = np.concatenate([batch.rows.numpy() for batch in job.loader.epoch(1)])
    assert len({*drawn.tolist()}) == len(drawn)
    assert len(drawn) == len(job.loader.rows) // 64 * 64
    assert not {*drawn.tolist()} & {*held.tolist()}


def test_what_is_left_of_an_epoch_is_as_in_the_whole(make: Make) -> None:
    loader = prepare(make(), ALONE).loader
    whole = [batch.rows for batch in loader.epoch(1)]
    for rows, later in zip(whole[4:], loader.epoch(1, 4), strict=True):
        assert torch.equal(rows, later.rows)


SETS = {
    "lsp": ["distill.checkpoint_steps=2", "distill.ema_decay=0.9"],
    "long graph": [
        *("distill.checkpoint_steps=2", "distill.micro_batch_size=60", "distill.graph_batch=700"),
        "distill.objective={lsp: 1.0, ega: 1.0}",
    ],
    "embeddistill": [
        *("distill.checkpoint_steps=2", "distill.objective={embeddistill: {temperature: 0.1}}"),
        *("distill.precision=bfloat16", "distill.micro_batch_size=60", "distill.ce_weight=0"),
    ],
}


@pytest.mark.parametrize("name", SETS)
def test_an_interrupted_training_ends_with_the_same_bits(
    make: Make, tmp_path: Path, name: str
) -> None:
    config = make(*SETS[name])
    whole = train(config, tmp_path / "whole")
    assert_same_weights(whole.path, train(config, tmp_path / "parts", 5, 10).path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    ["{lsp: {weight: 100, kernel: cosine}}", "{embeddistill: {weight: 0.1, temperature: 30}}"],
)
def test_three_workers_learn_what_one_learns(make: Make, tmp_path: Path, objective: str) -> None:
    """Real processes, whose edges are of all their rows; interrupted once. Without batch norm."""
    config = make(
        *("distill.student.name=torch.nn:Flatten", "distill.lr=0.01", "distill.epochs=2"),
        *("distill.checkpoint_steps=2", f"distill.objective={objective}"),
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    alone = train(config, tmp_path / "alone")
    for stop in (5, None):
        workers.train_together(3, file, tmp_path / "three", stop)
    one, three = weights(alone.path), weights(tmp_path / "three")
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-3, atol=1e-5, msg=name)


# ---------------------------------------------------------------------------------- whose run it is


def test_the_place_of_pairs_is_no_part_of_a_run(make: Make, file: Path, tmp_path: Path) -> None:
    config = make("distill.epochs=1")
    moved = shutil.copy(file, tmp_path / "moved.parquet")
    other = make("distill.epochs=1", f"dataset.pairs={moved}")
    assert run_identity(other) == run_identity(config)
    report = distill.run(config)
    assert run_folder(other).path == report.run
    assert distill.run(other).finished_before


def test_that_there_are_pairs_is_part_of_a_run(quick: MakeConfig, file: Path) -> None:
    plain, used = quick(), quick(f"dataset.pairs={file}")
    assert run_identity(plain) != run_identity(used)
    assert run_identity(quick("distill.edges={of: nearest}")) == run_identity(plain)
    edges = quick(f"dataset.pairs={file}", "distill.edges=pairs")
    assert run_identity(edges) != run_identity(used)


def test_a_training_does_not_go_on_with_other_pairs(make: Make, file: Path) -> None:
    config = make("distill.epochs=2")

    def interrupt(epoch: int, metrics: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill.run(config, report=interrupt)
    before = run_folder(config).read_json("store.json")["pairs"]
    kept = file.read_bytes()
    write_pairs(file, pairs_of(1999))
    said = rf"pairs of rows were {before[:12]}, are [0-9a-f]{{12}}: .*--restart"
    with pytest.raises(StoreError, match=said) as caught:
        distill.run(config)
    assert "\n" not in str(caught.value)
    file.write_bytes(kept)
    assert not distill.run(config).finished_before
    write_pairs(file, pairs_of(1999))
    with pytest.raises(StoreError, match="pairs of rows were"):
        distill.run(config)
    done = distill.run(config, restart=True)
    assert not done.finished_before
    assert distill.run(config).finished_before


def test_a_finished_run_outlives_its_pairs(
    make: Make, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    distill.run(make("distill.epochs=1"))
    file.unlink()
    assert distill.run(make("distill.epochs=1")).finished_before
    assert "is not compared with its pairs" in caplog.text


def test_a_record_that_is_damaged_is_said_to_be(make: Make) -> None:
    run = RunFolder(distill.run(make("distill.epochs=1")).run)
    run.write_json("store.json", {**run.read_json("store.json"), "pairs": 5})
    with pytest.raises(UsageError, match=r"store\.json is damaged: pairs is no digest"):
        distill.run(make("distill.epochs=1"))


def test_a_run_of_before_there_were_pairs_is_found_and_finished(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """Its configuration knows neither key, and its record no pairs."""
    report = distill.run(quick("distill.epochs=1", "distill.objective={lsp: 1}"))
    kept = report.run / "config.yaml"
    old = re.sub(
        r"^ +(of: nearest|pairs: null|embeddistill: null)\n", "", kept.read_text(), flags=re.M
    )
    assert len(old) < len(kept.read_text())
    kept.write_text(old)
    again = load_config(str(kept))
    assert run_folder(again).path == report.run
    assert distill.run(again).finished_before
    assert "pairs" not in RunFolder(report.run).read_json("store.json")


# -------------------------------------------------------------------------------- several machines


def look(rank: int, size: int, folder: str) -> None:
    """What each of the workers says; the last one's file is the same, another, or not there."""
    with workers.together(rank, size, Path(folder)):
        world = World.current(CPU)
        last = rank == size - 1
        for name in ("same", "other", "gone"):
            empty = np.zeros(0, np.int64)
            digest = ("1" if last and name == "other" else "0") * 64
            links = Links(empty, empty, np.zeros(0, np.float32), digest)
            said = "nothing"
            try:
                agreed(world, partial(opens, links, world, there=not last or name != "gone"))
            except EgapipeError as error:
                said = str(error)
            (Path(folder) / f"{name}{rank}").write_text(said)


def opens(links: Links, world: World, *, there: bool) -> None:
    if not there:
        raise UsageError("it is not there")
    check_one_file(links, world)


def test_workers_of_different_files_end_all_of_them(tmp_path: Path) -> None:
    """At once: a worker that another one waited for would be seen by the time-out."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", __name__])
    args = (3, str(tmp_path))
    mp.start_processes(look, args=args, nprocs=3, start_method="forkserver")  # type: ignore[attr-defined]
    said = {
        name: [(tmp_path / f"{name}{rank}").read_text() for rank in range(3)]
        for name in ("same", "other", "gone")
    }
    assert said["same"] == ["nothing"] * 3
    assert len({*said["other"]}) == 1
    assert said["other"][0].startswith("dataset.pairs is not the same file on all workers")
    assert said["gone"] == [*["another worker stopped"] * 2, "it is not there"]
