"""Runs in an object store: continued wherever they were killed, and read back from there."""

import json
import multiprocessing
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs
import torch
import typer
from safetensors.torch import load
from typer.testing import CliRunner

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import EgapipeError, StoreError, TrainingError, UsageError
from egapipe.pipeline.locations.lease import leased
from egapipe.pipeline.results import runs
from egapipe.pipeline.results.experiment import read_experiment
from egapipe.pipeline.results.runs import RunFolder, open_run, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store.objects.remote import RemoteObjects
from egapipe.stages import compare, distill, evaluate, export, predict, report
from egapipe.stages.watch import run_status
from egapipe.stages.watch.command import register
from egapipe.stages.watch.status import find_runs, look
from tests.command import egapipe
from tests.objectstore import S3, SECRET, environment, s3, s3_server, serve_s3
from tests.stages.distill.conftest import MakeConfig

__all__ = ["s3", "s3_server"]

CLOCK = {"train/seconds", "train/rows_per_s", "train/data_wait"}
# The best epoch is the last one.
SMALL = ("distill.epochs=2", "distill.eval_epochs=2", "distill.batch_size=600")
SMALL += ("distill.objective={}",)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits_store: str) -> None:
    """The copies of runs of this test alone; what else is in the cache is all tests'."""
    place = tmp_path / "cache"
    shared = cache_dir()
    place.mkdir()
    for folder in ("features", "pixels", "digests"):
        (shared / folder).mkdir(parents=True, exist_ok=True)
        (place / folder).symlink_to(shared / folder)
    monkeypatch.setenv("EGAPIPE_CACHE", str(place))


def on_another_machine() -> None:
    """Forget what this node has of runs."""
    shutil.rmtree(cache_dir() / "runs", ignore_errors=True)


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    """Of the last checkpoint, from where the run lies."""
    name = json.loads(run.read("checkpoints/last.json"))["folder"]
    files = ("student", "heads")
    return {
        f"{file}.{key}": value
        for file in files
        for key, value in load(run.read(f"checkpoints/{name}/{file}.safetensors")).items()
    }


def lines(run: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(run)]


def assert_same(one: RunFolder, two: RunFolder) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert lines(one) == lines(two)
    assert one.summary()["top1"] == two.summary()["top1"]


def keys(s3: S3) -> set[str]:
    return {key.partition("/")[2].partition("/")[2].partition("/")[2] for key in s3.objects()}


def test_a_run_there_is_the_run_here(quick: MakeConfig, s3: S3, tmp_path: Path) -> None:
    here = distill.run(quick(*SMALL))
    config = quick(*SMALL, f"runs={s3.url('runs')}")
    there = distill.run(config)
    assert there.where.startswith(s3.url("runs/quickstart/"))
    assert_same(open_run(there.where), RunFolder(here.run))
    # The same files, and no lease is left.
    local = {p.relative_to(here.run).as_posix() for p in here.run.rglob("*") if p.is_file()}
    assert {k for k in keys(s3) if "events" not in k} == {k for k in local if "events" not in k}
    assert any("tensorboard/events" in key for key in keys(s3))
    on_another_machine()
    assert distill.run(config).finished_before
    assert distill.run(config, restart=True).summary["top1"] == here.summary["top1"]
    written = list(s3.objects().values())
    written += [p.read_bytes() for p in cache_dir().rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in data for data in written)


def trained(config: Config, go: Any) -> None:
    """A training in a process of its own, which may be killed."""
    torch.set_num_threads(1)
    go.wait()
    distill.run(config)


def killed_at(s3: S3, config: Config, step: int, *, after: bool) -> bool:
    """Train in a process that is killed at its step-th request to write; whether it was."""
    context = multiprocessing.get_context("fork")
    go = context.Event()
    process = context.Process(target=trained, args=(config, go))
    process.start()
    assert process.pid is not None
    with s3.killing(process.pid, step, after=after):
        go.set()
        process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


# Lease, three descriptions, two epochs of metrics, events and four files of a checkpoint, pointers
# to both and to the best, four deletions of the first, summary, lease.
WRITES = 1 + 3 + 2 * (2 + 4) + 3 + 4 + 1 + 1


@pytest.fixture
def undisturbed(quick: MakeConfig) -> RunFolder:
    return RunFolder(distill.run(quick(*SMALL)).run)


@pytest.mark.parametrize(
    "steps",
    [
        # Every other one of them with the rest: three minutes.
        pytest.param(range(WRITES), marks=pytest.mark.slow),
        # Within a checkpoint, and within what is removed.
        (7, 23),
    ],
)
def test_killed_at_every_put_it_goes_on_from_there(
    quick: MakeConfig, s3: S3, undisturbed: RunFolder, steps: tuple[int, ...]
) -> None:
    for step in steps:
        config = quick(*SMALL, f"runs={s3.url(f'runs{step}')}")
        assert killed_at(s3, config, step, after=step % 2 == 0), step
        run = open_run(run_folder(config).url or "")
        assert not run.finished or step >= WRITES - 2
        # On the same machine, and on another one: each finds what counts.
        if step % 2:
            on_another_machine()
        assert_same(open_run(distill.run(config).where), undisturbed)
        assert not any("/lease/" in key for key in s3.objects())


def test_every_write_of_a_run_is_counted(quick: MakeConfig, s3: S3) -> None:
    """Else the test above would not kill at each of them."""
    config = quick(*SMALL, f"runs={s3.url('runs')}")
    s3.log()
    distill.run(config)
    assert sum(not line.startswith(("GET", "HEAD")) for line in s3.log()) == WRITES
    assert not killed_at(s3, quick(*SMALL, f"runs={s3.url('other')}"), WRITES, after=False)


def test_two_processes_at_one_run(quick: MakeConfig, s3: S3) -> None:
    config = quick(*SMALL, f"runs={s3.url('runs')}")
    url = run_folder(config).url
    assert url is not None
    refused = pytest.raises(TrainingError, match=f"run {url} is being trained by another process")
    with leased(RemoteObjects(url), "run"), refused:
        distill.run(config)
    again = pytest.raises(TrainingError, match="is being trained by another process")
    with run_folder(config).exclusive(), again:
        distill.run(config)
    assert distill.run(config).summary["epochs"] == 2


def test_a_run_that_was_taken_over_writes_no_pointer(quick: MakeConfig, s3: S3) -> None:
    """A process that was silent for too long, and wakes up."""
    config = quick(*SMALL, f"runs={s3.url('runs')}")
    url = run_folder(config).url or ""

    def take_over(epoch: int, _: object) -> None:
        RemoteObjects(url).put("lease/00000099", b"{}")

    with pytest.raises(TrainingError, match="was taken over by another process"):
        distill.run(config, report=take_over)
    run = open_run(url)
    assert not run.finished
    # The first epoch's may have been written just before.
    if run.has("checkpoints/last.json"):
        assert b"epoch00001-" in run.read("checkpoints/last.json")


def test_a_server_that_goes_away_ends_a_training_in_one_line(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with serve_s3() as server, environment(server.environment | {"AWS_MAX_ATTEMPTS": "1"}):
        server.client().create_bucket(Bucket=server.bucket)
        config = quick(*SMALL, f"runs={server.url('runs')}")
        with pytest.raises(EgapipeError) as said:
            distill.run(config, report=lambda epoch, metrics: server.stop())
    assert "\n" not in str(said.value)
    assert "check runs, the network" in str(said.value)


def test_a_bucket_that_is_not_there(quick: MakeConfig, s3: S3) -> None:
    with pytest.raises(StoreError, match="create the bucket, or set another runs"):
        distill.run(quick(*SMALL, "runs=s3://no-such-bucket-of-ours/x"))


@pytest.mark.slow  # each command once, among them an export and a page
def test_what_is_read_back(quick: MakeConfig, s3: S3, tmp_path: Path) -> None:
    """By every command that takes a run, on a machine that has nothing of it."""
    config = quick(*SMALL, f"runs={s3.url('runs')}")
    run = distill.run(config)
    on_another_machine()
    status = run_status(run.where)
    assert (status.state, status.epoch, len(status.losses)) == ("finished", 2, 2)
    assert find_runs(s3.url("runs")) == ([run.where], []) == find_runs(run.where)
    found = evaluate.run(run.where, probe_images=0)
    assert found.run == run.where
    assert found.predictions is not None
    assert found.predictions.top1 == pytest.approx(run.summary["top1"])
    assert open_run(run.where).summary()["evaluation"]["last"]["which"] == "last"
    exported = export.run(run.where, formats=["safetensors"])
    assert exported.folder == f"{run.where}/export"
    written = report.run(run.where)
    assert written.where == f"{run.where}/report.html"
    assert {"evaluation.json", "export/model.safetensors", "report.html"} <= keys(s3)
    on_another_machine()
    # An export that was made elsewhere is replaced as one of a disk is.
    export.run(run.where, formats=["safetensors"])
    assert not any("partial" in key for key in keys(s3))
    image = tmp_path / "x.png"
    open_dataset(config.dataset.train).image(0).save(image)
    classes = [next(predict.run(m, [image])).classes for m in (run.where, exported.folder)]
    assert classes[0] == classes[1]
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, [run.where, "--once"])
    assert done.exit_code == 0, done.output
    assert "finished" in done.stdout


@pytest.mark.parametrize("read", [distill.load_student, run_status, report.run, look])
def test_what_is_no_run_is_one_line(s3: S3, read: Callable[[str], object]) -> None:
    with pytest.raises(EgapipeError, match="s3://") as said:
        read(s3.url("nothing"))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("key", ["../../evil", "checkpoints/../../../../evil", "a/./b", "a//b"])
def test_a_key_leads_to_no_file_outside_of_the_copy(s3: S3, tmp_path: Path, key: str) -> None:
    s3.client().put_object(Bucket=s3.bucket, Key=f"run/{key}", Body=b"evil")
    run = open_run(s3.url("run"))
    with pytest.raises(StoreError, match="is no file of a run"):
        run.fetch()
    assert not list(tmp_path.rglob("evil"))


def test_a_small_file_without_end_is_not_read(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runs, "SMALL", 1000)
    s3.client().put_object(Bucket=s3.bucket, Key="run/summary.json", Body=bytes(1001))
    with pytest.raises(UsageError, match=r"summary.json cannot be read: it is larger than 1,000"):
        open_run(s3.url("run")).summary()


def test_a_reader_finds_a_whole_checkpoint_while_a_training_goes_on(
    quick: MakeConfig, s3: S3
) -> None:
    config = quick(*SMALL, "distill.epochs=6", f"runs={s3.url('runs')}")
    url = run_folder(config).url or ""
    stop, read = threading.Event(), []

    def follow() -> None:
        while not stop.is_set():
            if open_run(url).has("checkpoints/last.json"):
                read.append(distill.load_student(url, device="cpu").checkpoint.name)

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        distill.run(config)
    finally:
        stop.set()
        reader.join()
    assert read
    assert distill.load_student(url, device="cpu").checkpoint.name.startswith("epoch00006")


@pytest.mark.slow
def test_a_comparison_there(quick: MakeConfig, s3: S3, tmp_path: Path) -> None:
    sets = [*SMALL, "compare.seeds=[0]", "compare.students={}"]
    sets += ["compare.variants={ce: {distill.objective: {}}, kd: {distill.objective: {kd: 1.0}}}"]
    config = quick(*sets, f"runs={s3.url('runs')}")
    done = compare.run(config)
    assert str(done.folder).startswith(s3.url("runs/quickstart/compare-"))
    on_another_machine()
    record = read_experiment(str(done.folder)).experiment
    assert record.finished
    assert {str(cell.run)[:3] for cell in record.cells} == {"../"}
    assert len(compare.run(config).done) == 2
    written = report.run(str(done.folder))
    assert written.where == f"{done.folder}/report.html"
    page = written.page.read_text("utf-8")
    assert "curves" in page.lower()


@pytest.mark.slow
def test_workers_of_ray_need_no_shared_folder(quick: MakeConfig, s3: S3, tmp_path: Path) -> None:
    """Two workers without batch norm compute what one computes. Slow: a Ray of its own, whose
    workers have the environment of the command."""
    sets = ["distill.student.name=torch.nn:Flatten", "distill.epochs=2", "distill.lr=0.01"]
    # The best checkpoint is measured by all workers at the end.
    sets += ["dataset.validation={fraction: 0.2}"]
    config = quick(*sets, "distill.workers=2", "cluster.cpus=8", f"runs={s3.url('runs')}")
    (tmp_path / "there.yaml").write_text(to_yaml(config))
    done = egapipe("distill", "-c", str(tmp_path / "there.yaml"))
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    run = open_run(run_folder(config).url or "")
    assert run.where in done.stdout
    one, two = weights(RunFolder(distill.run(quick(*sets)).run)), weights(run)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert run.summary()["checkpoint"].startswith("checkpoints/epoch00002")
    assert run.summary()["best_top1"] > 0
    assert {key.partition("/")[0] for key in keys(s3)} >= {"ray", "results.json", "summary.json"}
    assert "lease" not in {key.partition("/")[0] for key in keys(s3)}
