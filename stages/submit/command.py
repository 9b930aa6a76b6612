"""`egapipe submit`: a command as a job of a Ray cluster."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egapipe.pipeline.terminal.options import (
    ConfigName,
    Overrides,
    TrustRemoteCode,
    as_path,
    as_service,
)
from egapipe.pipeline.terminal.text import say
from egapipe.stages.submit import COMMANDS, ON_RESULTS

if TYPE_CHECKING:
    from egapipe.stages.submit import Jobs, Package

_DEFAULT = "http://127.0.0.1:8265"

_submit = typer.Typer(help="Run a command on a Ray cluster, as a job.", no_args_is_help=True)

Address = Annotated[
    str | None,
    typer.Option(
        parser=as_service,
        help="Of the cluster's dashboard; default: $RAY_API_SERVER_ADDRESS or loopback.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", help="Further argument of the command (repeatable)."),
]
Cpus = Annotated[float | None, typer.Option(min=0, help="CPUs for the command itself.")]
Gpus = Annotated[
    float | None,
    typer.Option(min=0, help="GPUs for the command itself, where it trains in process."),
]
Environment = Annotated[
    Path | None,
    typer.Option(
        "--runtime-env",
        parser=as_path,
        help="YAML file with Ray's runtime environment: env_vars, pip, image_uri, py_modules, ...",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Print the job's id and do not wait.")]
JobId = Annotated[str, typer.Argument(help="What `egapipe submit` printed.")]


def register(app: typer.Typer) -> None:
    """Add `egapipe submit`."""
    app.add_typer(_submit, name="submit")
    for command in COMMANDS:
        _submit.command(command, help=_help(command))(_starter(command))
    for command in ON_RESULTS:
        _submit.command(command, help=_help(command))(_starter_on_results(command))


def _help(command: str) -> str:
    return f"Run `egapipe {command}` on the cluster."


def _starter(command: str) -> Callable[..., None]:
    def start(
        config: ConfigName = None,
        overrides: Overrides = None,
        address: Address = None,
        arguments: Arguments = None,
        cpus: Cpus = None,
        gpus: Gpus = None,
        environment: Environment = None,
        detach: Detach = False,
        trust_remote_code: TrustRemoteCode = False,
    ) -> None:
        from egapipe.pipeline.config import load_config
        from egapipe.stages.submit import pack

        loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
        package = pack(loaded, command, arguments or [])
        _start(package, address, cpus, gpus, environment, detach=detach)

    return start


def _starter_on_results(command: str) -> Callable[..., None]:
    def start(
        folder: Annotated[
            Path, typer.Argument(parser=as_path, help="Of results, where all nodes see it.")
        ],
        address: Address = None,
        arguments: Arguments = None,
        cpus: Cpus = None,
        gpus: Gpus = None,
        environment: Environment = None,
        detach: Detach = False,
    ) -> None:
        from egapipe.stages.submit import pack_results

        package = pack_results(command, [folder], arguments or [])
        _start(package, address, cpus, gpus, environment, detach=detach)

    return start


def _start(
    package: "Package",
    address: str | None,
    cpus: float | None,
    gpus: float | None,
    environment: Path | None,
    *,
    detach: bool,
) -> None:
    from egapipe.stages.submit.environment import read_environment

    jobs = _jobs(address)
    given = {} if environment is None else read_environment(environment)
    job = jobs.submit(package, cpus=cpus, gpus=gpus, environment=given)
    say(f"job: {job}")
    if not detach:
        _follow(jobs, job)


@_submit.command()
def status(job: JobId, address: Address = None) -> None:
    """Say how a job stands."""
    say(_jobs(address).status(job))


@_submit.command()
def logs(
    job: JobId,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on to the job's end, with its exit code.")
    ] = False,
) -> None:
    """Print what a job has printed."""
    jobs = _jobs(address)
    if follow:
        _follow(jobs, job)
    else:
        typer.echo(jobs.logs(job), nl=False)


@_submit.command()
def stop(job: JobId, address: Address = None) -> None:
    """Stop a job. What it has finished is kept: submit the same command to continue."""
    stopped = _jobs(address).stop(job)
    typer.echo("stopped" if stopped else "it was over already")


def _follow(jobs: "Jobs", job: str) -> None:
    try:
        code = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        say(f"the job goes on: egapipe submit logs --follow {job}", err=True)
        raise
    if code:
        raise typer.Exit(code)


def _jobs(address: str | None) -> "Jobs":
    from egapipe.pipeline.machine.cluster import quiet_environment
    from egapipe.stages.submit.jobs import Jobs

    quiet_environment(local=False)
    return Jobs(address or os.environ.get("RAY_API_SERVER_ADDRESS") or _DEFAULT)
