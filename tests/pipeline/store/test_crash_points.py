"""Every point at which a process that writes a store can be killed, by what it is doing.

Killed before each change of the file system and after the last, the store is whole or unfinished,
and the same work done again ends byte for byte as it would have undisturbed. The counts are those
of docs/reliability.md. In an object store a point is a request to write: see `test_s3` and
`test_growth`, which kill before and after each.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.store import Failure, FeatureStore, check_store
from egapipe.pipeline.store.format import layout
from tests.pipeline.store import test_growth as growth
from tests.pipeline.store.kill import killed_before
from tests.pipeline.store.samples import create, finished, make_arrays, make_digests, snapshot

Act = Callable[[str], object]

MANIFEST = growth.manifest_of(growth.BEFORE)
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reliability.md"


def begin(url: str) -> FeatureStore:
    return create(url, MANIFEST)


SHARDS = [range(3), range(3, 5)]


def commit(url: str, shard: int = 0) -> FeatureStore:
    """One shard, in which a row has failed."""
    store, rows = FeatureStore.open(url), SHARDS[shard]
    failed = [Failure(rows.start, f"train/{rows.start}", "damaged")]
    arrays, images = make_arrays(MANIFEST, rows), make_digests(MANIFEST, rows)
    store.write_shard(shard, arrays, failures=failed, images=images)
    return store


def both(url: str) -> None:
    begin(url)
    commit(url, 0)
    commit(url, 1)


def finish(url: str) -> None:
    FeatureStore.open(url).finish()


def whole(url: str) -> None:
    both(url)
    finish(url)


def retry(url: str) -> None:
    """Do shards again in which a row has failed."""
    FeatureStore.open(url).forget_failed()
    commit(url, 0)
    commit(url, 1)
    finish(url)


DOINGS: dict[str, tuple[Act, Act]] = {
    "a creation": (lambda url: None, begin),
    "a commit": (begin, commit),
    "a finish": (both, finish),
    "an append of two shards": (lambda url: finished(url, MANIFEST), growth.append),
    "two shards done again": (whole, retry),
}
"""What is done -> what is there before, and the doing."""


def documented() -> dict[str, int]:
    """Points on a disk, as the page counts them."""
    found = re.findall(r"^\| (an? [\w ]+|two [\w ]+) \| (\d+) \|", PAGE.read_text(), re.M)
    return {doing: int(count) for doing, count in found}


def content(url: str) -> list[dict[str, bytes]]:
    """Every state of a store, as far as it is the same in every run."""
    grown = FeatureStore.open(url).manifest.dataset.parent is not None
    states = growth.every_state(url) if grown else [snapshot(FeatureStore.open(url))]
    # What a killed writer left beside an object goes when the store is finished.
    return [{k: data for k, data in state.items() if not layout.leftover_of(k)} for state in states]


# Hundreds of processes.
@pytest.mark.slow
@pytest.mark.parametrize("doing", DOINGS)
def test_no_moment_is_a_bad_one(tmp_path: Path, doing: str) -> None:
    before, act = DOINGS[doing]
    undisturbed = str(tmp_path / "undisturbed")
    before(undisturbed)
    (tmp_path / "before").mkdir()
    if Path(undisturbed).exists():
        shutil.copytree(undisturbed, tmp_path / "before", dirs_exist_ok=True)
    act(undisturbed)
    expected, step, killed = content(undisturbed), 0, True
    while killed:
        url = str(tmp_path / f"{step}")
        shutil.copytree(tmp_path / "before", url)
        killed = killed_before(step, lambda url=url: act(url))
        problems = check_store(url).problems
        if FeatureStore.exists(url):
            assert problems == []
        else:
            assert all("no store at" in p or "while it was created" in p for p in problems)
        act(url)
        assert content(url) == expected
        assert check_store(url).problems == []
        shutil.rmtree(url)
        step += 1
    assert step - 1 == documented()[doing]
