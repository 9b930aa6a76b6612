"""SIGKILL at random moments, as often as it likes: the finished store is that of no kill at all."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.stages import extract
from tests.command import egapipe, start
from tests.stages.extract.conftest import MakeConfig, Sets, as_options
from tests.stages.extract.contents import content
from tests.stages.extract.processes import workers_below

COMMAND = ["extract", "--split", "train"]
# 50 small shards, in float32, whose last bits would tell.
MANY = ["dataset.train.limit=400", "views.count=4", "store.shard_rows=8", "store.dtype=float32"]


def kill_amid_writing(command: list[str], url: str, rng: random.Random) -> int:
    """Start an extraction and SIGKILL it some moments after it has written a few files.

    Returns how many commit records are there then: all of them if it was too fast to be killed.
    """
    enough = files(url) + rng.randint(1, 10)
    process = start(*command)
    while process.poll() is None and files(url) < enough:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    workers = workers_below(process.pid, "ExtractActor")
    process.kill()
    assert process.wait(60) in (0, -signal.SIGKILL), "it failed before it was killed"
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "workers outlive the command that started them"
    return len(list(Path(url, "commits").glob("0*.json")))


def files(url: str) -> int:
    return sum(len(names) for _, _, names in os.walk(url))


def finish(command: list[str]) -> str:
    end = egapipe(*command)
    assert end.returncode == 0, end.stderr
    return end.stdout


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        pytest.param(["--local"], 3, id="local"),
        # Ten seconds to the first shard of each command.
        pytest.param([], 3, id="ray", marks=pytest.mark.slow),
    ],
)
def test_a_killed_extraction_ends_with_the_bytes_of_an_undisturbed_one(
    quick: MakeConfig, sets: Sets, tmp_path: Path, options: list[str], kills: int
) -> None:
    undisturbed = extract.run(
        quick(*MANY, f"store.url={tmp_path / 'undisturbed'}"), split="train", local=True
    )
    url = quick(*MANY).store_url("train")
    command = [*COMMAND, *options, *as_options(sets(*MANY))]
    rng = random.Random(7)  # noqa: S311
    committed = [kill_amid_writing(command, url, rng) for _ in range(kills)]
    assert committed == sorted(committed)
    assert committed[0] < len(FeatureStore.open(undisturbed.url).shards), "nothing was killed"
    assert "400 rows x 5 views" in finish(command)
    assert content(url) == content(undisturbed.url)
    assert check_store(url).ok
