"""A real Ray head with its job server, on the loopback interface."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.stages.distill.conftest import digits_store, quick

__all__ = ["digits_store", "head", "quick"]

START_SECONDS = 120
TOKEN = secrets.token_hex(32)


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the job server of a cluster of one node with 4 logical CPUs."""
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed")
    dashboard = free_port()
    # Short: Ray's sockets lie below it, and their paths may have 107 characters.
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            start_command(dashboard),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_until_it_answers(f"{address}/api/version", process, log)
        yield address
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def start_command(dashboard: int) -> list[str]:
    """`ray start` in the foreground, on ports that no other Ray of this machine has."""
    ports = {
        "port": free_port(),
        "ray-client-server-port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "dashboard-agent-grpc-port": free_port(),
        "metrics-export-port": free_port(),
        "num-cpus": 4,
        "object-store-memory": 100 * 2**20,
    }
    options = [f"--{name}={value}" for name, value in ports.items()]
    fixed = ["--head", "--block", "--disable-usage-stats", "--dashboard-host=127.0.0.1"]
    address = ["--node-ip-address=127.0.0.1", "--include-dashboard=true"]
    script = str(Path(sys.executable).parent / "ray")
    return [sys.executable, script, "start", *fixed, *address, *options]


def clean_environment() -> dict[str, str]:
    """Without the address of a Ray that the tests are in, with this Python first on the path."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return {**own, **auth, "PATH": path, "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text("utf-8", errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError:
            return  # it wants the token
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text("utf-8", errors="replace")[-3000:])
