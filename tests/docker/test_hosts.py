"""The Slurm script on several hosts: a Ray node on each, stores on an object store between them.

Slurm's own two commands are stood in for; all else is real. Slow: Ray starts on two hosts for every
command, and of each one host is killed on the way.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.stages.distill.folder import training_folder
from tests.docker.hosts import Hosts, hosts
from tests.objectstore import S3, s3, s3_server
from tests.relay import Relay

__all__ = ["s3", "s3_server"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None,
        reason="network and mount namespaces need root, ip and unshare",
    ),
]
SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "slurm.sh"
ROOT = SCRIPT.parents[1]
SRUN = """#!/bin/bash
while [ "${1:0:2}" = -- ]; do
    case "$1" in --nodelist=*) node="${1#*=}" ;; esac
    shift
done
own="$HOSTS/$node"
mkdir -p "$own/home"
# Of a host /tmp and home are its own; `ip netns exec` has made a mount namespace.
exec ip netns exec "$node" sh -c 'mount --bind "$0" /tmp && HOME=/tmp/home exec "$@"' "$own" "$@"
"""


@dataclass(frozen=True)
class Cluster:
    """Two hosts and a folder that both see."""

    hosts: Hosts
    folder: Path
    environment: dict[str, str]
    store: str

    @property
    def sets(self) -> list[str]:
        """Where things are, as on the command line."""
        small = [
            "views.count=2",
            "store.shard_rows=64",
            "distill.threads=1",
            "distill.checkpoint_steps=5",
        ]
        return [f"store.url={self.store}", f"runs={self.folder / 'runs'}", *small]

    def run(self, command: str, *sets: str, meanwhile: Callable[[Callable[[], bool]], None]) -> str:
        """A command by the script, and what it printed."""
        arguments = [part for text in (*self.sets, *sets) for part in ("--set", text)]
        first = self.hosts.names[0]
        process = subprocess.Popen(
            ["ip", "netns", "exec", first, "bash", str(SCRIPT), command, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(process.communicate, timeout=900)
            meanwhile(lambda: process.poll() is not None)
            output, _ = waiting.result()
        assert process.returncode == 0, output
        return output


@pytest.fixture
def cluster(s3: S3) -> Iterator[Cluster]:
    """Slurm's commands and the Python that runs the tests are on the path of both hosts."""
    relayed = urlsplit(s3.endpoint).port
    assert relayed is not None
    try:
        entered = hosts(2)
        with (
            entered as made,
            Relay(relayed, made.gateway) as relay,
            # Not below /tmp, of which every host has its own.
            tempfile.TemporaryDirectory(prefix="hosts", dir="/var/tmp") as name,
        ):
            folder = Path(name)
            programs = folder / "bin"
            programs.mkdir()
            names = "\\n".join(made.names)
            write_program(programs / "scontrol", f"#!/bin/bash\nprintf '{names}\\n'\n")
            write_program(programs / "srun", SRUN)
            path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
            own = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "EGAPIPE_"))}
            environment = {
                **own,
                **s3.environment,
                "AWS_ENDPOINT_URL": f"http://{made.gateway}:{relay.port}",
                "PATH": path,
                "PYTHONPATH": str(ROOT),
                "SLURM_JOB_NODELIST": ",".join(made.names),
                "SLURM_JOB_ID": str(os.getpid()),
                "SLURM_CPUS_PER_TASK": "1",
                "HOSTS": str(folder / "hosts"),
                "OMP_NUM_THREADS": "1",
            }
            yield Cluster(made, folder, environment, s3.url("quickstart"))
    except OSError as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")


def write_program(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    file.chmod(0o755)


def wait_for(there: Callable[[], bool]) -> None:
    while not there():
        time.sleep(0.2)


def test_two_hosts_extract_train_and_search_and_one_of_them_dies_each_time(
    cluster: Cluster, s3: S3
) -> None:
    second = cluster.hosts.names[1]
    lost: list[list[int]] = []

    def lose(there: Callable[[], bool]) -> Callable[[Callable[[], bool]], None]:
        def meanwhile(over: Callable[[], bool]) -> None:
            wait_for(lambda: there() or over())
            if not over():
                killed.append(cluster.hosts.kill(second))

        killed: list[int] = []
        lost.append(killed)
        return meanwhile

    def records() -> int:
        return sum("commit" in key or "records" in key for key in s3.objects())

    cluster.run("extract", meanwhile=lose(lambda: records() > 2))
    for split in ("train", "test"):
        assert check_store(f"{cluster.store}/{split}.zarr").problems == []

    sets = ["distill.epochs=20", "distill.workers=2", "distill.min_workers=1"]
    sets += ["distill.sync_batchnorm=true"]
    config = load_config("quickstart", [*cluster.sets, *sets])
    run = training_folder(config)
    cluster.run("distill", *sets, meanwhile=lose(lambda: bool(read_metrics(run))))
    assert run.finished
    assert [m["epoch"] for m in read_metrics(run)] == list(range(20))

    search = ["sweep.samples=3", "distill.epochs=6", "sweep.max_failures=3"]
    search += ["sweep.cpus_per_trial=1", "sweep.max_concurrent=2"]

    def trials() -> list[RunFolder]:
        return [RunFolder(f.parent) for f in (cluster.folder / "runs").rglob("metrics.jsonl")]

    before = len(trials())
    said = cluster.run("sweep", *search, meanwhile=lose(lambda: len(trials()) > before + 1))
    assert "best" in said
    assert sum(trial.finished for trial in trials()) == before + 3
    assert len(lost) == 3
    assert all(killed and killed[0] > 0 for killed in lost)


def test_a_host_with_other_images_has_no_part_in_a_store(cluster: Cluster) -> None:
    """Of 156 images twelve are the same on both hosts, which hold them under the same names."""
    first, second = cluster.hosts.names
    for name in (first, second):
        folder = cluster.folder / "hosts" / name / "images"
        folder.mkdir(parents=True)
        for row in range(156):
            seed = row if name == first or row % 13 == 0 else 1000 + row
            pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{row:03d}.png")
    url = f"{cluster.store}-images"
    sets = ["dataset.train={kind: folder, path: /tmp/images}", "dataset.test=null"]
    sets += [f"store.url={url}", "store.shard_rows=12"]
    said = cluster.run("extract", *sets, meanwhile=lambda over: None)
    left_out = re.search("no further worker is started on .+ is missing or another one", said)
    assert left_out, said
    store = FeatureStore.open(f"{url}/train.zarr")
    files = cluster.folder / "hosts" / first / "images"
    for shard, rows in enumerate(store.shards):
        commit = store.commits()[shard]
        for key, digest in zip(store.keys(list(rows)), store.read_digests(commit), strict=True):
            assert bytes(digest) == sha256((files / key).read_bytes()).digest()
