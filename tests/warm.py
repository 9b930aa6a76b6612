"""A process with the libraries of all commands, which forks itself for each command of a test.

A command of its own spends three seconds of four on importing them. A fork has them already, but
no module of egapipe: it imports those as any command does. It is a process like another: it has
its own arguments, folder, environment and output, ends as the interpreter does, and can be killed.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# None of them runs a thread of Python's, and none reads what tests change in the environment.
LIBRARIES = (
    *("PIL.Image", "psutil", "pyarrow.parquet", "pydantic", "rich.console", "safetensors.torch"),
    *(
        "scipy.special",
        "sklearn.linear_model",
        "sklearn.manifold",
        "torch._dynamo",
        "torch.utils.tensorboard",
    ),
    *("transformers.modeling_utils", "transformers.image_processing_utils", "typer", "yaml"),
)
_NUMBER = struct.Struct("!i")
File = IO[Any] | None
SHARED = "EGAPIPE_TESTS_WARM"
"""Variable with the descriptor of the connection, for programs that the tests start."""


class Process:
    """A module that was started as `python -m` starts it.

    pid: of its process. returncode: how it ended, as `subprocess` says it; None until that is seen.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: File = None,
        stderr: File = None,
    ) -> None:
        """cwd, env: default: this process's. stdout, stderr: open files; default: thrown away."""
        request = {"argv": [module, *arguments], "cwd": str(cwd or Path.cwd())}
        told = json.dumps({**request, "env": dict(os.environ if env is None else env)}).encode()
        self._answers, theirs = socket.socketpair()
        with theirs, Path(os.devnull).open("wb") as nowhere:
            files = [theirs, stdout or nowhere, stderr or nowhere]
            server = _server()
            socket.send_fds(server, [_NUMBER.pack(len(told))], [file.fileno() for file in files])
            server.sendall(told)
        self.pid = self._answer()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The return code, or None while it runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.returncode = self._answer()
            self._answers.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The return code. Raises subprocess.TimeoutExpired if it runs for longer."""
        if self.returncode is None:
            select.select([self._answers], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("egapipe", timeout or 0)
        return code

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _answer(self) -> int:
        return int(_NUMBER.unpack(_exactly(self._answers, _NUMBER.size))[0])


@functools.cache
def _server() -> socket.socket:
    """The connection to the process that forks; it ends when this one does."""
    if SHARED in os.environ:
        return socket.socket(fileno=int(os.environ[SHARED]))
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.warm", str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], pass_fds=[theirs.fileno()]
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def shared() -> int:
    """The descriptor of the connection, to be handed to a program that is `tests.warm_egapipe`."""
    return _server().fileno()


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises EOFError if the other end is gone."""
    parts = b""
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError("the process that commands are forked from is gone")
        parts += part
    return parts


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for every request; returns in each fork, with the request, and at the end with None."""
    while True:
        header, files, _, _ = socket.recv_fds(connection, _NUMBER.size, 3)
        if not header:
            return None
        request = json.loads(_exactly(connection, *_NUMBER.unpack(header)))
        while _reaped():
            pass
        if os.fork() == 0:
            connection.close()
            answers, *outputs = files
            if _in_a_child(answers):
                os.close(answers)
                for file, place in zip(outputs, (1, 2), strict=True):
                    os.dup2(file, place)
                    os.close(file)
                return request  # type: ignore[no-any-return]
        for file in files:
            os.close(file)


def _in_a_child(answers: int) -> bool:
    """Fork once more: True in the child; the parent says how the child ended, and ends."""
    child = os.fork()
    if child == 0:
        return True
    os.write(answers, _NUMBER.pack(child))
    _, status = os.waitpid(child, 0)
    os.write(answers, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _reaped() -> bool:
    """Whether a child that has ended was found, and is no zombie any more."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def become(argv: list[str], cwd: str, env: dict[str, str]) -> None:
    """What a fresh interpreter would have been started with."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = argv
    sys.path[0] = cwd
    importlib.invalidate_caches()


def run(module: str) -> None:
    """Run a module as `python -m` does; after all that is done at the exit, end at once.

    The interpreter would take all modules apart first, which takes as long as the command.
    """
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            _ENDED.append(stop.code or 0)
        raise


_ENDED: list[int] = []


def _leave() -> None:
    if _ENDED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_ENDED[0])


if __name__ == "__main__":
    # The first to be registered is the last to be called.
    atexit.register(_leave)
    for library in LIBRARIES:
        importlib.import_module(library)
    # A fork would otherwise look at, and so copy, all that is there.
    gc.freeze()
    if (asked := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        become(**asked)
        run(sys.argv[0])
