"""What clients of other storage raise, and what it means."""

import re
import sys
import traceback
from collections.abc import Collection

from egapipe.pipeline.errors import one_line

# Those that have plain errors besides, for answers that they do not know.
_PLAIN = {"gcsfs", "s3fs", "botocore"}
# Roots of the clients' own exceptions, which are no OSErrors.
_CLIENTS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("gcsfs.retry", "ChecksumError"),
    ("gcsfs.retry", "NonRetryableError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
# What S3 and GCS say of a conditional put that found an object, or another put of the same.
_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_USER = re.compile(r"(://)\S*@")


def is_trouble(error: Exception) -> bool:
    """Whether a client raises this for a storage's trouble, as far as it is imported, or because it
    cannot do that at all, as write to a web server.

    A ValueError or the like that no client has raised is a fault of the program, and stays one.
    """
    known = [
        getattr(sys.modules[module], name)
        for module, name in _CLIENTS
        if hasattr(sys.modules.get(module), name)
    ]
    if isinstance(error, (OSError, NotImplementedError, *known)):
        return True
    return isinstance(error, ValueError | RuntimeError) and _raised_in(error, _PLAIN)


def reason(error: BaseException) -> str:
    """What a client says, in one line, without the user that an endpoint's URL may name."""
    return _USER.sub(r"\1", one_line(error))


def code(error: BaseException | None) -> str:
    """The code of what a client has raised, a name or a number; s3fs wraps botocore's."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        for name in ("code", "status"):
            if getattr(error, name, None) is not None:
                return str(getattr(error, name))
        error = error.__cause__
    return ""


def exists_already(error: Exception) -> bool:
    """Whether a conditional put found an object, or lost against another one at that moment."""
    return isinstance(error, FileExistsError) or code(error) in _LOST


def is_unconditional(error: Exception) -> bool:
    """Whether a client or a server does not know conditional puts."""
    return isinstance(error, NotImplementedError) or code(error) in ("NotImplemented", "501")


def is_beyond(error: Exception) -> bool:
    """Whether an object ends before the part that was asked for, an empty one too."""
    return code(error) in ("InvalidRange", "416")


def _raised_in(error: Exception, packages: Collection[str]) -> bool:
    """Whether an exception has come out of one of these packages."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(f.f_globals.get("__name__", "").partition(".")[0] in packages for f in frames)
