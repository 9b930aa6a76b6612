"""Real servers of object stores on the loopback interface. Import the fixtures by their names."""

import json
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs

from egapipe.pipeline.locations import buckets

ROOT = Path(__file__).resolve().parents[1]
SECRET = "s3cr3t/of+the+tests"  # noqa: S105


@dataclass(frozen=True)
class S3:
    """A server, and a bucket of this test alone."""

    endpoint: str
    process: "subprocess.Popen[str]"
    bucket: str = field(default_factory=lambda: f"bucket-{uuid.uuid4().hex}")

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know; nothing of it is anywhere else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIDTESTS",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def url(self, path: str = "train.zarr") -> str:
        return f"s3://{self.bucket}/{path}"

    def log(self) -> list[str]:
        """`METHOD /bucket/key` of every request since the last call."""
        lines: list[str] = self._order("log")
        return lines

    def fail(self, requests: int) -> None:
        """Answer the next requests with 503 Slow Down."""
        self._order("fail", requests)

    def damage(self, requests: int) -> None:
        """Let the next objects that are put arrive with a wrong bit."""
        self._order("damage", requests)

    @contextmanager
    def killing(self, pid: int, step: int, *, after: bool) -> Iterator[None]:
        """SIGKILL a process at the step-th request to write, counted from 0 and whoever sends it:
        before that request has any effect, or else when it is done and before the answer."""
        self._order("kill", {"pid": pid, "step": step, "after": after})
        try:
            yield
        finally:
            self._order("kill")

    @contextmanager
    def authorization(self, keys: Sequence[str] = ("*",)) -> Iterator[dict[str, str]]:
        """For the length of a block credentials count; the environment of one who may only list,
        and read objects of these keys."""
        iam = self.client("iam")
        name = uuid.uuid4().hex
        iam.create_user(UserName=name)
        objects = [f"arn:aws:s3:::{self.bucket}/{key}" for key in keys]
        allowed = {"s3:ListBucket": "*", "s3:GetObject": objects}
        statements = [{"Effect": "Allow", "Action": a, "Resource": r} for a, r in allowed.items()]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._request("/moto-api/reset-auth", b"0")
        try:
            yield {
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            }
        finally:
            self._request("/moto-api/reset-auth", b"inf")

    def client(self, service: str = "s3") -> Any:
        """The service, past everything that is tested."""
        return _client(self.endpoint, service)

    def objects(self) -> dict[str, bytes]:
        """Every object of the bucket."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {k: client.get_object(Bucket=self.bucket, Key=k)["Body"].read() for k in keys}

    def stop(self) -> None:
        """End the server; everything in it is gone."""
        self.process.kill()
        self.process.wait()

    def _order(self, name: str, content: object = None) -> Any:
        return json.loads(self._request(f"/-/{name}", json.dumps(content).encode()))

    def _request(self, path: str, data: bytes) -> bytes:
        plain = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self.endpoint + path, data, plain)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            body: bytes = answer.read()
            return body


@contextmanager
def serve_s3() -> Iterator[S3]:
    """A server of its own process, without a bucket."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield S3(f"http://127.0.0.1:{int(process.stdout.readline())}", process)
    finally:
        process.kill()
        process.communicate()


@cache
def _client(endpoint: str, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id="AKIDTESTS",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3) -> Iterator[S3]:
    """An empty bucket, and the environment that gives access to it."""
    server = S3(s3_server.endpoint, s3_server.process)
    server.client().create_bucket(Bucket=server.bucket)
    with environment(server.environment):
        yield server


@pytest.fixture(params=["obstore", "fsspec"])
def either_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ask S3 through one client and through the other."""
    client: str = request.param
    pytest.importorskip(client)
    monkeypatch.setenv(buckets.CLIENT, client)
    return client


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Enter an environment with these variables and no other of AWS.

    Clients are made once a process: they are forgotten where they would be those of another one.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        _keep_clients_of(variables)
        yield


_entered: dict[str, str] = {}


def _keep_clients_of(variables: dict[str, str]) -> None:
    if variables != _entered:
        s3fs.S3FileSystem.clear_instance_cache()
        buckets.forget()
        _entered.clear()
        _entered.update(variables)
