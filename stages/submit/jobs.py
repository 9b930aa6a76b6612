"""Ray's job server, with errors that say what to do."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.locations.urls import redacted
from egapipe.stages.submit.package import Package

T = TypeVar("T")

_POLL_SECONDS = 0.5
# How long a server that does not answer is asked again, and how often.
_GONE_SECONDS, _AGAIN_SECONDS = 300.0, 3.0


class _GoneError(EgapipeError):
    """The server does not answer now."""


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str) -> None:
        """Connect. address: of the dashboard, e.g. http://127.0.0.1:8265.

        Raises UsageError if nothing answers there, or this Ray lacks the client.
        """
        try:
            from ray.exceptions import AuthenticationError
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise UsageError(
                f"jobs need more of Ray than is installed ({error}): pip install 'egapipe[cluster]'"
            ) from error
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise UsageError(
                f"the Ray job server at {address} wants a token: set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN or ~/.ray/auth_token to the cluster's"
            ) from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"no Ray job server answers at {address} ({one_line(error)}): start one with "
                "`ray start --head` where 'egapipe[cluster]' is installed, and give its "
                "dashboard's address"
            ) from error
        self.address = address

    def submit(
        self,
        package: Package,
        *,
        cpus: float | None = None,
        gpus: float | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload a job and start it; its id.

        cpus, gpus: what the command itself asks for, beside the workers that it starts.
        environment: Ray's runtime environment, for the command and all that it starts.
        """
        name = package.arguments[0] if package.config is None else package.config.name
        with tempfile.TemporaryDirectory(prefix="egapipe-job-") as folder:
            package.write(Path(folder))
            with _explained():
                return str(
                    self._client.submit_job(
                        entrypoint="python -m egapipe.stages.submit.entry",
                        runtime_env={**(environment or {}), "working_dir": folder},
                        metadata={"egapipe": package.command, "name": name},
                        entrypoint_num_cpus=cpus,
                        entrypoint_num_gpus=gpus,
                    )
                )

    def status(self, job: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, and why. Raises UsageError for no job."""
        with _explained(job):
            info = self._client.get_job_info(job)
        message = " ".join((info.message or "").split())
        return f"{info.status.value}" + (f": {message}" if message else "")

    def logs(self, job: str) -> str:
        """What the job has printed so far."""
        with _explained(job):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> bool:
        """Stop a job; False if it was over already."""
        with _explained(job):
            return bool(self._client.stop_job(job))

    def follow(self, job: str, write: Callable[[str], object]) -> int:
        """Write what a job prints as it comes, to its end; the exit code of its command.

        1 where the job ended without one: stopped, or lost with its node. A connection that breaks
        is made again, and goes on where it was. Raises EgapipeError where none comes about for
        minutes; the job is then what it is.
        """
        # Of a job that is not there the log would not come to an end, nor to an error of one line.
        self._ended(job)
        log = _Log(write)
        while not self._patiently(lambda: self._ended(job)):
            asyncio.run(self._stream(job, log))
            time.sleep(_POLL_SECONDS)
        log.whole(self._patiently(lambda: self.logs(job)))
        with _explained(job):
            info = self._client.get_job_info(job)
        if info.status.value == "SUCCEEDED":
            return 0
        return info.driver_exit_code or 1

    def _ended(self, job: str) -> bool:
        with _explained(job):
            return bool(self._client.get_job_status(job).is_terminal())

    def _patiently(self, ask: Callable[[], T]) -> T:
        """The answer, once there is one."""
        last = time.monotonic() + _GONE_SECONDS
        while True:
            try:
                return ask()
            except _GoneError:
                if time.monotonic() > last:
                    raise
            time.sleep(_AGAIN_SECONDS)

    async def _stream(self, job: str, log: "_Log") -> None:
        """Write what comes until the log ends, or the connection does: who asks for the job's
        status finds out which."""
        import aiohttp

        log.begin()
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
            async for text in self._client.tail_job_logs(job):
                log.more(text)


class _Log:
    """A text that is written once, though it comes from its beginning more than once."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write, self._written, self._at = write, 0, 0

    def begin(self) -> None:
        """What follows is the beginning again."""
        self._at = 0

    def more(self, text: str) -> None:
        """The next part of it."""
        end = self._at + len(text)
        new = text[max(0, self._written - self._at) :]
        self._at, self._written = end, max(self._written, end)
        if new:
            self._write(new)

    def whole(self, text: str) -> None:
        """All of it."""
        self.begin()
        self.more(text)


@contextmanager
def _explained(job: str | None = None) -> Iterator[None]:
    """The server's refusals, which come as RuntimeError with a page of its traceback."""
    try:
        yield
    # Builtin ConnectionError and that of requests are both of these.
    except OSError as error:
        raise _GoneError(f"the Ray job server is gone: {_last(error)}") from error
    except RuntimeError as error:
        if job is not None and "404" in str(error):
            raise UsageError(f"there is no job {job} at this address") from None
        raise EgapipeError(f"the Ray job server refuses: {_last(error)}") from error


def _last(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(lines[-1])[:300] if lines else type(error).__name__
