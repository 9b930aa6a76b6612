"""URLs that may be written down."""

import re

from egapipe.pipeline.errors import UsageError

_USER = re.compile(r"://[^/@]*:.*@")
_QUERY = re.compile(r"://.*\?")


def refuse_credentials(url: str) -> None:
    """Raise UsageError, which does not repeat the URL, if it holds a password or a query.

    A URL is kept in configurations, run folders and logs, and printed in errors. A query can be a
    signature. The first slash ends no password: those of S3 have slashes.
    """
    if _USER.search(url):
        raise UsageError(
            "store.url holds credentials before its @: leave them out, and set them in the "
            "environment (see `Object stores` in docs/store.md)"
        )
    if _QUERY.search(url):
        raise UsageError("store.url has a query: leave out everything from its ? on")
