"""`transformers` without reports on what it loads."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(local: bool = True) -> Iterator[None]:
    """No reports on loading; bars only where something may be downloaded."""
    import transformers

    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    if local:
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
