"""Ray's job server, with errors that say what to do."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.urls import redacted
from egapipe.stages.submit.package import pack

_POLL_SECONDS = 0.5


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
        config: Config,
        command: str,
        arguments: list[str],
        *,
        cpus: float | None = None,
        gpus: float | None = None,
    ) -> str:
        """Upload a job and start it; its id. cpus, gpus: what the command itself asks for, beside
        the workers that it starts. Raises UsageError if the configuration cannot run elsewhere."""
        with tempfile.TemporaryDirectory(prefix="egapipe-job-") as folder:
            pack(config, command, arguments, Path(folder))
            with _explained():
                return str(
                    self._client.submit_job(
                        entrypoint="python -m egapipe.stages.submit.entry",
                        runtime_env={"working_dir": folder},
                        metadata={"egapipe": command, "name": config.name},
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

        1 where the job ended without one: stopped, or lost with its node.
        """
        # Of a job that is not there the log would not come to an end, nor to an error of one line.
        self._ended(job)
        with _explained(job):
            asyncio.run(self._stream(job, write))
        while not self._ended(job):
            time.sleep(_POLL_SECONDS)
        with _explained(job):
            info = self._client.get_job_info(job)
        if info.status.value == "SUCCEEDED":
            return 0
        return info.driver_exit_code or 1

    def _ended(self, job: str) -> bool:
        with _explained(job):
            return bool(self._client.get_job_status(job).is_terminal())

    async def _stream(self, job: str, write: Callable[[str], object]) -> None:
        async for text in self._client.tail_job_logs(job):
            write(text)


@contextmanager
def _explained(job: str | None = None) -> Iterator[None]:
    """The server's refusals, which come as RuntimeError with a page of its traceback."""
    try:
        yield
    except ConnectionError as error:
        raise EgapipeError(f"the Ray job server is gone: {_last(error)}") from error
    except RuntimeError as error:
        if job is not None and "404" in str(error):
            raise UsageError(f"there is no job {job} at this address") from None
        raise EgapipeError(f"the Ray job server refuses: {_last(error)}") from error


def _last(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(lines[-1])[:300] if lines else type(error).__name__
