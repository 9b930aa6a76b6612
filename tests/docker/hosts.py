"""Several hosts on one machine: network namespaces on a bridge."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hosts:
    """names: of the hosts. gateway: the address of this machine that they all see."""

    names: list[str]
    gateway: str

    def kill(self, name: str) -> int:
        """SIGKILL every process of a host; how many there were."""
        pids = _output("ip", "netns", "pids", name).split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return len(pids)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts, which see each other by name. Raises OSError where that is not permitted."""
    mark = f"ega{os.getpid() % 100000}"
    network = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 256}"
    made = Hosts([f"{mark}-{number}" for number in range(count)], f"{network}.1")
    table = "127.0.0.1 localhost\n" + "".join(
        f"{network}.{number + 2} {name}\n" for number, name in enumerate(made.names)
    )
    try:
        _ip("link", "add", mark, "type", "bridge")
        _ip("address", "add", f"{network}.1/24", "dev", mark)
        _ip("link", "set", mark, "up")
        for number, name in enumerate(made.names):
            _add(name, number, mark, f"{network}.{number + 2}", table)
        yield made
    finally:
        for name in made.names:
            made.kill(name)
            with contextlib.suppress(OSError):
                _delete(name)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            _ip("link", "delete", mark)


def _add(name: str, number: int, bridge: str, address: str, table: str) -> None:
    # Gloo asks for the address of the machine's name, which all hosts share.
    files = Path("/etc/netns") / name
    files.mkdir(parents=True)
    (files / "hosts").write_text(f"{table}{address} {socket.gethostname()}\n", "utf-8")
    _ip("netns", "add", name)
    ours, theirs = f"{bridge}o{number}", f"{bridge}t{number}"
    _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
    _ip("link", "set", ours, "master", bridge, "up")
    _ip("-n", name, "address", "add", f"{address}/24", "dev", theirs)
    _ip("-n", name, "link", "set", theirs, "up")
    _ip("-n", name, "link", "set", "lo", "up")


def _delete(name: str) -> None:
    """Its processes may take a moment to be gone."""
    deadline = time.monotonic() + 10
    while _output("ip", "netns", "pids", name).split() and time.monotonic() < deadline:
        time.sleep(0.1)
    _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
