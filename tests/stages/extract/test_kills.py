"""SIGKILL at random moments, as often as it likes: the finished store is that of no kill at all."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.stages import extract
from tests.stages.extract.conftest import MakeConfig, Sets, as_options
from tests.stages.extract.contents import content, every_byte

COMMAND = [sys.executable, "-m", "egapipe.pipeline.cli", "extract", "--split", "train"]
# Two dozen small shards of a tenth of a second each, in float32, whose last bits would tell.
MANY = ["dataset.train.limit=400", "views.count=4", "store.shard_rows=16", "store.dtype=float32"]


def kill_amid_writing(command: list[str], url: str, pause: float) -> int:
    """Start an extraction and SIGKILL it `pause` seconds after it has written a first object.

    Returns how many commit records are there then.
    """
    before = len(every_byte(url))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(every_byte(url)) <= before:
        time.sleep(0.002)
    time.sleep(pause)
    below = psutil.Process(process.pid).children(recursive=True)
    workers = [p for p in below if "ray::ExtractActor" in " ".join(p.cmdline())]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "workers outlive the command that started them"
    return len(list(Path(url, "commits").glob("0*.json")))


def finish(command: list[str]) -> str:
    end = subprocess.run(command, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    return end.stdout


@pytest.mark.parametrize(
    ("options", "kills", "longest"),
    [
        pytest.param(["--local"], 3, 0.6, id="local"),
        # Ten seconds to the first shard of each command.
        pytest.param([], 2, 1.0, id="ray", marks=pytest.mark.slow),
    ],
)
def test_a_killed_extraction_ends_with_the_bytes_of_an_undisturbed_one(
    quick: MakeConfig, sets: Sets, tmp_path: Path, options: list[str], kills: int, longest: float
) -> None:
    undisturbed = extract.run(
        quick(*MANY, f"store.url={tmp_path / 'undisturbed'}"), split="train", local=True
    )
    url = quick(*MANY).store_url("train")
    command = [*COMMAND, *options, *as_options(sets(*MANY))]
    rng = random.Random(7)  # noqa: S311
    committed = [kill_amid_writing(command, url, rng.uniform(0, longest)) for _ in range(kills)]
    assert committed == sorted(committed)
    assert committed[-1] < len(FeatureStore.open(undisturbed.url).shards)
    assert "400 rows x 5 views" in finish(command)
    assert content(url) == content(undisturbed.url)
    assert check_store(url).ok
