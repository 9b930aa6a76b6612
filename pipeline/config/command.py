"""`egapipe config`: what a configuration resolves to."""

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides
from egapipe.pipeline.terminal.text import columns, say

_config = typer.Typer(help="Show configurations.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `egapipe config`."""
    app.add_typer(_config, name="config")


@_config.command()
def show(config: ConfigName = None, overrides: Overrides = None) -> None:
    """Print the resolved configuration as YAML, bases merged and every default included."""
    from egapipe.pipeline.config import load_config, to_yaml

    # Nothing of it is run here.
    typer.echo(to_yaml(load_config(config, overrides or [], trust_remote_code=True)), nl=False)


@_config.command("list")
def list_() -> None:
    """List the configurations that ship with egapipe, then the parts to join to them by +."""
    from egapipe.pipeline.config.files import description, is_part, shipped

    names = sorted(shipped(), key=is_part)
    rows = [[f"{'+' if is_part(name) else ''}{name}", description(name)] for name in names]
    say(*columns(rows, left=(0, 1)))
