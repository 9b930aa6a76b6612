"""Errors a user can act on: one line, what was wrong, where, and what to do."""


class EgapipeError(Exception):
    """A failure that is explained to the user in one line; the command exits with `exit_code`.

    Whatever is printed, logged or kept of it holds no secret of a URL: here is the one border.
    """

    exit_code = 1
    agreed = False
    """Whether all workers of a training know already that one of them stops."""

    def __init__(self, *args: object) -> None:
        # Below this module's errors, which that one raises.
        from egapipe.pipeline.locations.urls import redacted

        super().__init__(*(redacted(a) if isinstance(a, str) else a for a in args))


class UsageError(EgapipeError):
    """The command, the configuration or a path is wrong: nothing was started. Exit code 2."""

    exit_code = 2


class ImageError(EgapipeError):
    """One image cannot be read. Extraction records it and goes on."""


class MachineError(EgapipeError):
    """The machine cannot read what may be sound data: nothing is recorded about it."""


class TeacherError(EgapipeError):
    """The teacher cannot be loaded or its outputs are unusable."""


class StoreError(EgapipeError):
    """A store is damaged, incomplete, or not the one that was asked for."""


class TrainingError(EgapipeError):
    """A student's training cannot go on."""


class InUseError(TrainingError):
    """Another process trains it."""


def one_line(error: BaseException, longest: int = 300) -> str:
    """What an exception says, or its name if it says nothing, in one line of bearable length.

    longest: in characters; some libraries list every model they have.
    """
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    # Below this module's errors, which that one raises.
    from egapipe.pipeline.locations.urls import redacted

    line = redacted(" ".join(said.split())) or type(error).__name__
    return line if len(line) <= longest else f"{line[:longest]}..."
