"""The measurement at scale: what it measures, and that it runs through."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from egapipe.stages.bench.scale import SHARD_ROWS, Numbered, Part, Sample, Scaled, measure
from tests.markdown import blocks, page


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


def test_the_page_computes_what_it_says() -> None:
    """The table of a billion rows is what its formulas give."""
    text = page("docs/scale.md")
    [formulas] = [block for language, block in blocks(text) if language == "python"]
    found: dict[str, Any] = {}
    exec(compile(formulas, "docs/scale.md", "exec"), found)  # noqa: S102
    numbered = found["driver_gigabytes"] - found["rows"] * (found["key_bytes"] + 8) / 1e9
    said = [
        f"| shards | {found['shards']:,} |",
        f"| one shard | {found['shard_megabytes']:.0f} MB |",
        f"| embeddings | {found['store_terabytes']:.1f} TB |",
        f"| index | {found['index_gigabytes']:.0f} GB |",
        f"| `commits.parquet` | {found['table_megabytes']:.0f} MB |",
        f"| memory of the driver, keys as text | {found['driver_gigabytes']:.0f} GB |",
        f"| memory of the driver, numbered keys | {numbered:.0f} GB |",
        f"| memory of a worker, beside its teacher and its shards | "
        f"{found['worker_gigabytes']:.1f} GB |",
        f"| puts and reads of an extraction | {found['puts']:,} and {found['reads']:,} |",
        f"| the driver's own work | {found['driver_minutes']:.0f} min |",
        f"| finishing, at 300 reads/s | {found['finish_minutes']:.0f} min |",
        f"| a command on the finished store: requests, seconds | "
        f"{found['command_requests']:.0f}, {found['command_seconds']:.0f} s |",
        f"| fingerprint of keys and labels | {found['fingerprint_minutes']:.0f} min |",
        f"| digests of the images, of one core; the workers share it | "
        f"{found['digest_hours']:.0f} h |",
        f"| GPU hours at 2,000 views/s a GPU | {found['gpu_hours'](2000):.0f} |",
        f"{found['dollars'](0, 1, 5e-6, 4e-7, 0, 0):.2f} dollars",
        f"{found['dollars'](0, 1, 0, 0, 23, 1):.0f} dollars a month",
    ]
    assert [line for line in said if line not in " ".join(text.splitlines()) + text] == []
