"""Prometheus reads from Ray's own endpoint what workers have done."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn

from tests.stages.extract.conftest import Sets, as_options
from tests.stages.submit.conftest import clean_environment, end, free_port, start_command

pytestmark = [
    pytest.mark.slow,  # a Ray of its own, with the agent that exports metrics
]
EXTRACT = [sys.executable, "-m", "egapipe.pipeline.cli", "extract", "--split", "train", "--workers"]
SECONDS = 240


class Slow(nn.Module):
    """Takes a second a batch: its worker is there while it is asked."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(1)
        return x.flatten(1)[:, :4]


def slow() -> nn.Module:
    return Slow()


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Options of a Ray of one node that was started for this test."""
    pytest.importorskip("prometheus_client", reason="ray[default] is not installed")
    command = start_command(free_port())
    environment = {**clean_environment(), "RAY_metrics_report_interval_ms": "500"}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield dict(re.findall(r"--([\w-]+)=(\S+)", " ".join(command)))
    finally:
        end(process)


def scraped(port: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def value(text: str, name: str, **tags: str) -> float:
    """The sum of a counter's series that have some tags; Prometheus's names may end in _total."""
    found = 0.0
    for line in text.splitlines():
        match = re.fullmatch(rf"ray_egapipe_extract_{name}(?:_total)?\{{(.*)\}} (\S+)", line)
        if match and all(f'{key}="{text}"' in match[1] for key, text in tags.items()):
            found += float(match[2])
    return found


def test_rows_shards_failures_and_seconds_by_part(
    ray_head: dict[str, str], sets: Sets, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for row in range(40):
        (images / f"{row:02}.png").write_bytes(b"no image" if row == 3 else PNG)
    options = sets(
        f"dataset.train={{kind: folder, path: {images}}}",
        "dataset.test=null",
        f"teacher={{backend: python, model: '{__name__}:slow', preprocessing: {{size: 8}}}}",
        "store.shard_rows=4",
        "extract.max_failures=1",
        "extract.batch_size=4",
        "views.count=0",
        f"cluster.address=127.0.0.1:{ray_head['port']}",
    )
    environment = {**clean_environment(), "PYTHONPATH": os.environ["PYTHONPATH"]}
    process = subprocess.Popen(
        [*EXTRACT, *as_options(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )
    text, deadline = "", time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        text = scraped(ray_head["metrics-export-port"])
        if value(text, "rows") >= 8 and value(text, "failures"):
            break
        time.sleep(0.5)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert value(text, "rows", split="train") >= 8, said + text[-3000:]
    assert value(text, "shards", split="train") * 4 == value(text, "rows", split="train")
    assert value(text, "failures", split="train") == 1
    assert value(text, "seconds", part="infer") >= 1
    assert re.search(r'"details": \["[^"]*shard \d+', said), said


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
