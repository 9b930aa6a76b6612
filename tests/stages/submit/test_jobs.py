"""Commands as jobs of a real Ray head. Slow: it takes up to a minute to start and to end."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.results.runs import run_folder
from egapipe.stages.submit import Jobs, pack
from tests.relay import Relay
from tests.stages.distill.conftest import MakeConfig
from tests.stages.submit.conftest import clean_environment, free_port

WAIT = 180


def submit(head: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "egapipe.pipeline.cli", "submit", *arguments, "--address", head],
        env={**clean_environment(), **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT,
    )


def written(config: Config, folder: Path) -> str:
    file = folder / "experiment.yaml"
    file.write_text(to_yaml(config), "utf-8")
    return str(file)


@pytest.mark.slow
def test_a_job_streams_its_log_and_gives_its_exit_code(
    head: str, quick: MakeConfig, tmp_path: Path
) -> None:
    config = quick("distill.epochs=1")
    done = submit(head, "distill", "-c", written(config, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"job: raysubmit_\w+\n", done.stdout)
    assert "digits_cnn: top-1" in done.stdout
    assert run_folder(config).finished
    job = done.stdout.split()[1]
    assert submit(head, "status", job).stdout.startswith("SUCCEEDED")
    assert "digits_cnn: top-1" in submit(head, "logs", job).stdout
    assert submit(head, "stop", job).stdout == "it was over already\n"
    missing = quick("distill.seed=5", f"store.url={tmp_path / 'nowhere'}")
    failed = submit(head, "distill", "-c", written(missing, tmp_path))
    assert failed.returncode == 1, failed.stdout
    assert "nowhere/train.zarr" in failed.stdout


@pytest.mark.slow
def test_a_detached_job_is_stopped(head: str, quick: MakeConfig, tmp_path: Path) -> None:
    config = quick("distill.epochs=100000", "distill.milestones=[]")
    started = submit(head, "distill", "-c", written(config, tmp_path), "--detach")
    assert started.returncode == 0, started.stderr
    job = started.stdout.split()[1]
    wait_until(lambda: run_folder(config).metrics.is_file())
    assert submit(head, "status", job).stdout.startswith("RUNNING")
    assert submit(head, "stop", job).stdout == "stopped\n"
    wait_until(lambda: submit(head, "status", job).stdout.startswith("STOPPED"))
    assert submit(head, "logs", job, "--follow").returncode == 1


@pytest.mark.slow
def test_a_broken_connection_is_made_again_and_the_log_is_whole(
    head: str, quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, clean_environment()[name])
    monkeypatch.setattr("egapipe.stages.submit.jobs._AGAIN_SECONDS", 0.2)
    written: list[str] = []
    with Relay(int(head.rpartition(":")[2])) as relay:
        jobs = Jobs(f"http://127.0.0.1:{relay.port}")
        job = jobs.submit(pack(quick("distill.epochs=6"), "distill", []))

        def write(text: str) -> None:
            written.append(text)
            if len(written) == 1:
                relay.cut()
            elif len(written) == 2:
                threading.Thread(target=stay_away, args=(relay,)).start()

        assert jobs.follow(job, write) == 0
        assert "".join(written) == jobs.logs(job)
    assert len(written) > 2


def stay_away(relay: Relay) -> None:
    with relay.refusing():
        time.sleep(2)


@pytest.mark.slow
def test_results_are_measured_and_reported_where_they_lie(
    head: str, quick: MakeConfig, tmp_path: Path
) -> None:
    config = quick("distill.epochs=1", "distill.seed=7")
    assert submit(head, "distill", "-c", written(config, tmp_path)).returncode == 0
    run = run_folder(config).path
    environment = tmp_path / "environment.yaml"
    environment.write_text("env_vars: {COLUMNS: '100'}\n", "utf-8")
    for command in ("evaluate", "report"):
        done = submit(head, command, str(run), "--runtime-env", str(environment))
        assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "evaluation.json").is_file()
    assert (run / "report.html").is_file()
    examined = submit(head, "doctor", "-c", written(config, tmp_path))
    assert "store" in examined.stdout, examined.stdout + examined.stderr


@pytest.mark.slow
def test_what_is_not_there_is_one_line(head: str) -> None:
    unknown = submit(head, "status", "raysubmit_none")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1), unknown.stderr
    assert "there is no job raysubmit_none" in unknown.stderr
    for command in (["logs"], ["logs", "--follow"], ["stop"]):
        missing = submit(head, *command, "NOPE")
        assert (missing.returncode, missing.stdout) == (2, ""), missing.stdout
        assert missing.stderr == "error: there is no job NOPE at this address\n"
    nobody = submit(f"http://127.0.0.1:{free_port()}", "status", "any")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1), nobody.stderr
    assert "no Ray job server answers" in nobody.stderr
    stranger = submit(head, "status", "any", RAY_AUTH_MODE="disabled")
    assert (stranger.returncode, stranger.stderr.count("\n")) == (2, 1), stranger.stderr
    assert "wants a token" in stranger.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_a_folder_that_a_node_does_not_see_is_refused(tmp_path: Path) -> None:
    """A cluster of two nodes, one of which has another file system at the folder."""
    folder = tmp_path / "stores"
    folder.mkdir()
    script = tmp_path / "look.py"
    script.write_text(LOOK, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(tmp_path / "everywhere")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("mount namespaces are not permitted here")
    assert done.returncode == 0, done.stderr
    refused, allowed = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert "is not seen by 1 of 2 nodes" in refused
    assert allowed == ""
    assert list(folder.iterdir()) == []


LOOK = '''
"""A head, and a node in a mount namespace of its own that has an empty file system at a folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ray

from egapipe.pipeline.errors import UsageError
from egapipe.stages.submit.visible import check_visible

hidden, everywhere = sys.argv[1:]
context = ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
address = context.address_info["gcs_address"]
ray_script = str(Path(sys.executable).parent / "ray")
command = f"mount -t tmpfs none {hidden} && {sys.executable} {ray_script} start --block "
command += f"--address={address} --num-cpus=1 --disable-usage-stats"
probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
if probe.returncode:
    sys.exit("unshare failed")
node = subprocess.Popen(
    ["unshare", "-m", "sh", "-c", command], stdout=subprocess.DEVNULL, start_new_session=True
)
try:
    deadline = time.monotonic() + 90
    while len([n for n in ray.nodes() if n["Alive"]]) < 2:
        assert time.monotonic() < deadline and node.poll() is None
        time.sleep(0.3)
    for folder in (hidden, everywhere):
        try:
            check_visible([folder])
            print(json.dumps(""))
        except UsageError as error:
            print(json.dumps(str(error)))
finally:
    os.killpg(node.pid, signal.SIGTERM)
    node.wait(30)
    ray.shutdown()
'''


def wait_until(condition: Callable[[], bool], seconds: float = WAIT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
