"""The buckets of S3 that are asked through obstore: where they are, and with whose credentials.

That is botocore's to say, as it is for s3fs: profiles, roles, endpoints and regions mean the same
to both. `EGAPIPE_S3=fsspec` leaves obstore out.
"""

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, NamedTuple

from egapipe.pipeline.locations.s3 import RETRIES, S3Client, explained

CLIENT = "EGAPIPE_S3"
"""The variable of the environment that names the client, `obstore` or `fsspec`."""
_URL = re.compile(r"s3a?://([^/]+)(?:/(.*))?", re.S)
# botocore renews credentials ten minutes before they end, and obstore asks again after half of it.
_LASTING = timedelta(minutes=10)
_REDIRECTED = ("amazonaws.com", "amazonaws.com.cn")


def client_of(url: str) -> tuple[S3Client, str] | None:
    """Client and key of a URL of S3, if obstore can be used for it.

    It cannot in a process that was forked from one that has used it, nor where fsspec has settings
    of its own for S3, nor for keys that are no paths. Raises what botocore raises.
    """
    match = _URL.fullmatch(url)
    if match is None or _after_fork or not _is_chosen():
        return None
    key = (match[2] or "").rstrip("/")
    if key and not {"", ".", ".."}.isdisjoint(key.split("/")):
        return None
    bucket = match[1]
    with _making:
        if bucket not in _clients:
            _clients[bucket] = _open(bucket)
        client = _clients[bucket]
    return None if client is None else (client, key)


def forget() -> None:
    """Make clients anew: the environment has changed."""
    _clients.clear()


class Address(NamedTuple):
    """Where a bucket is. virtual: its name is part of the host's."""

    endpoint: str
    virtual: bool
    region: str


def address_of(session: Any, bucket: str) -> Address:
    """Where botocore sends what is about a bucket. Raises what botocore raises."""
    client = _unsigned(session)
    region = client.meta.region_name
    if _host(client.meta.endpoint_url).endswith(_REDIRECTED):
        # Another region than the environment's: botocore would be redirected, obstore not.
        region = region_of(client, bucket) or region
        client = _unsigned(session, region)
    base = _url_of(client, bucket, "k").removesuffix("/k")
    named = "us-east-1" if region in (None, "aws-global") else region
    return Address(base.removesuffix(f"/{bucket}"), not base.endswith(f"/{bucket}"), named)


def region_of(client: Any, bucket: str) -> str | None:
    """The region of a bucket, which S3 tells everybody; None if it does not. client: botocore's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError:
        return None
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = headers.get("x-amz-bucket-region")
    return region


_clients: dict[str, S3Client | None] = {}
_making = threading.Lock()
_after_fork = False


def _lose_threads() -> None:
    """obstore's threads are the parent's: whoever waits for them here waits for ever."""
    global _after_fork, _making
    _after_fork = _after_fork or bool(_clients)
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_threads)


def _is_chosen() -> bool:
    from fsspec.config import conf

    return os.environ.get(CLIENT, "obstore") == "obstore" and _is_installed() and not conf.get("s3")


@cache
def _is_installed() -> bool:
    return all(find_spec(name) is not None for name in ("obstore", "botocore"))


def _open(bucket: str) -> S3Client | None:
    """None where certificates are of an authority that botocore alone is told of."""
    import botocore.session
    from botocore.exceptions import NoCredentialsError
    from obstore.store import S3Store

    session = botocore.session.get_session()
    if session.get_config_variable("ca_bundle"):
        return None
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    address = address_of(session, bucket)
    attempts = session.get_config_variable("max_attempts")
    with explained():
        store = S3Store(
            bucket,
            config={
                # Obstore would believe this variable of the environment before `endpoint`.
                "aws_endpoint_url_s3": address.endpoint,
                "region": address.region,
                "virtual_hosted_style_request": address.virtual,
                "checksum_algorithm": "SHA256",
                # One object, one request, and its own answer.
                "disable_bulk_delete": True,
            },
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=30),
                "read_timeout": timedelta(seconds=60),
                # Of a whole request, however large its object is.
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": attempts - 1 if attempts else RETRIES},
            credential_provider=_provider(credentials),
        )
    # Made when it is asked for, and once: a client of botocore takes a tenth of a second.
    signed = cache(partial(session.create_client, "s3"))
    return S3Client(store, partial(_checksum_of, signed, bucket))


def _unsigned(session: Any, region: str | None = None) -> Any:
    import botocore
    from botocore.config import Config

    unsigned = Config(signature_version=botocore.UNSIGNED)
    return session.create_client("s3", region_name=region, config=unsigned)


def _url_of(client: Any, bucket: str, key: str) -> str:
    """Where a client would send a request for an object, which it does not."""
    urls: list[str] = []

    def stop(request: Any, **others: Any) -> None:
        del others
        urls.append(request.url)
        raise _UnsentError

    client.meta.events.register("before-send.s3.GetObject", stop)
    with suppress(_UnsentError):
        client.get_object(Bucket=bucket, Key=key)
    return urls[0]


class _UnsentError(Exception):
    """Instead of an answer."""


def _checksum_of(client: Callable[[], Any], bucket: str, key: str) -> str | None:
    answer = client().head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    found: str | None = answer.get("ChecksumSHA256")
    return found


def _provider(credentials: Any) -> Callable[[], Any]:
    def current() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _LASTING,
        }

    return current


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
