"""From a URL to the objects there."""

import os

from egapipe.pipeline.store.local import LocalObjects
from egapipe.pipeline.store.objects import Objects
from egapipe.pipeline.store.remote import RemoteObjects
from egapipe.pipeline.urls import local_path, refuse_credentials, with_variables


def open_objects(url: str) -> Objects:
    """The objects at a URL: a local path or file:// URL, else any URL that fsspec knows.

    A local path becomes absolute, because workers on other processes have other working folders.
    Raises UsageError, which does not repeat the URL, if it holds credentials.
    """
    path = local_path(url)
    if path is not None:
        return LocalObjects(os.path.abspath(path))
    url = with_variables(url)
    refuse_credentials(url)
    scheme, _, rest = url.partition("://")
    return RemoteObjects(f"{scheme}://{rest.rstrip('/')}")
