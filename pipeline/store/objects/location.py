"""From a URL to the objects there."""

import os
from pathlib import Path

from egapipe.pipeline.locations.urls import local_path, refuse_credentials, with_variables
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.local import LocalObjects
from egapipe.pipeline.store.objects.remote import RemoteObjects

Place = str | Path | Objects
"""The text of a local path or URL, in which `~` and `$VARIABLES` are expanded; a path as it is; or
the objects themselves."""


def open_objects(place: Place) -> Objects:
    """The objects at a place: a local path or file:// URL, else any URL that fsspec knows.

    A local path becomes absolute, because workers on other processes have other working folders.
    Raises UsageError, which does not repeat the URL, if it holds credentials.
    """
    if isinstance(place, Objects):
        return place
    path = place if isinstance(place, Path) else local_path(place)
    if path is not None:
        return LocalObjects(os.path.abspath(path))
    url = with_variables(str(place))
    refuse_credentials(url)
    scheme, _, rest = url.partition("://")
    return RemoteObjects(f"{scheme}://{rest.rstrip('/')}")
