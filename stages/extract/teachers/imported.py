"""The teacher that is not here: only its embeddings are."""

from typing import NoReturn

from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.errors import UsageError


def load(config: ImportedTeacher, loading: object = None) -> NoReturn:
    """Raise UsageError: there is no network to run."""
    del loading
    raise UsageError(
        f"teacher.backend is imported: {config.model} cannot be run here, bring its embeddings "
        "with `egapipe store import FILE`"
    )
