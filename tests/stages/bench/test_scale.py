"""The measurement at scale: what it measures, and that it runs through."""

import pickle
from pathlib import Path

import pytest

from egapipe.stages.bench.scale import SHARD_ROWS, Numbered, Part, Sample, Scaled, measure


def sample(shards: int) -> Sample:
    """One shard takes 2 s, 3 ms of the driver; memory grows by a byte a shard."""
    return Sample(shards * SHARD_ROWS, 2.0 * shards, 0.003 * shards, 100 + shards, 200 + shards)


def test_a_part_is_seen_per_shard() -> None:
    part = Part.of([sample(4), sample(5), sample(8)])
    assert part.rows_per_second == SHARD_ROWS / 2
    assert part.driver_seconds == pytest.approx(0.003)
    assert (part.driver_bytes, part.worker_bytes) == (105, 205)


def test_parts_cover_the_run() -> None:
    parts = Scaled(0, [sample(shard) for shard in range(1, 12)], {}, {}, []).parts()
    assert [part.driver_bytes for part in parts] == [102, 104, 106, 108, 110]


def test_images_are_made_from_their_numbers_wherever_they_are() -> None:
    images = Numbered(300)
    assert len({images.encoded(row) for row in range(300)}) == 300
    sent = pickle.dumps(images)
    assert len(sent) < 200
    received = pickle.loads(sent)  # noqa: S301
    assert received.encoded(7) == images.image(7).tobytes()
    assert received.fingerprint() == images.fingerprint()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_whole_path_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow, because workers import torch."""
    monkeypatch.chdir(tmp_path)
    found = measure(rows=12 * SHARD_ROWS)
    assert found.problems == []
    assert found.samples[-1].rows == 12 * SHARD_ROWS
    assert len(found.parts()) == 5
    assert all(part.driver_bytes > 0 and part.worker_bytes > 0 for part in found.parts())
    assert not list(tmp_path.iterdir())
