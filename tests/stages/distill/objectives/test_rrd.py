"""The anchors of similarity distillation: a queue that moves on, or centres that stay."""

import numpy as np
import pytest
import torch

from egapipe.stages.distill.data.features.anchors import anchors_of
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.objectives.samples import FEATURES, anchors, build, pair

ALONE = World.alone(torch.device("cpu"))


def objective(name):
    return build(name).objectives["rrd"]


def batches(*lengths):
    return [pair(length, seed=seed) for seed, length in enumerate(lengths)]


def test_a_queue_holds_the_rows_that_were_met_last():
    queue = objective("rrd")
    assert torch.equal(queue.anchors, anchors("queue", 20))
    met = batches(7, 7, 9)
    for batch in met:
        queue(batch)
    every = torch.cat([batch.teacher_features for batch in met]).detach()
    kept = {tuple(row.tolist()) for row in queue.anchors}
    assert kept == {tuple(row.tolist()) for row in every[-20:]}
    queue(pair(25, seed=9))
    last = pair(25, seed=9).teacher_features[-20:]
    assert torch.equal(queue.anchors.sort(0).values, last.sort(0).values)


def test_it_does_not_move_while_it_is_evaluated():
    queue = objective("rrd").eval()
    queue(pair(7))
    assert torch.equal(queue.anchors, anchors("queue", 20))
    assert queue.place == 0


def test_centres_stay():
    centres = objective("rrd of clusters")
    before = centres.anchors.clone()
    centres(pair(7))
    assert torch.equal(centres.anchors, before)
    assert before.shape == (20, FEATURES)


@pytest.fixture
def found(quick: MakeConfig):
    config = quick("distill.standardize=zscore", "dataset.validation={fraction: 0.5}")
    job = prepare(config, ALONE)
    standardize = job.model.teacher_head.standardized

    def find(kind, count, seed=0):
        return anchors_of(job.sources, standardize, seed, ALONE, kind, count)

    return job, find


def test_anchors_are_standardised_rows_that_a_training_learns_from(found):
    job, find = found
    rows = np.flatnonzero(job.sources.learned)
    known = job.model.teacher_head.standardized(job.sources.features[0].take(rows, 0))
    drawn = find("queue", 50)
    distance = torch.cdist(drawn, known, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    assert drawn.shape == (50, known.shape[1])
    assert distance.max() == 0
    assert not torch.equal(find("queue", 50, seed=1), drawn)
    assert len(find("queue", 10**6)) == len(rows)


def test_centres_are_found_once_and_again_where_they_are_damaged(found):
    job, find = found
    centres = find("kmeans", 10)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(10))
    folder = job.sources.features[0].path.parent
    # The cache may hold those of another egapipe's store.
    (file,) = folder.glob(f"{job.sources.features[0].key}-anchors10-*.npy")
    made = file.stat().st_mtime_ns
    assert torch.equal(find("kmeans", 10), centres)
    assert file.stat().st_mtime_ns == made
    file.write_bytes(b"nothing")
    assert torch.equal(find("kmeans", 10), centres)
