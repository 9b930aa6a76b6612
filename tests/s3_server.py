"""An S3 server on the loopback interface, in a process of its own, that fails and kills on order.

`python -m tests.s3_server` prints its port. Below the path `/-/`, which is no bucket, it takes
orders: see `tests.objectstore.S3`.
"""

import base64
import hashlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Environ = dict[str, Any]
Start = Callable[..., Any]

WRITES = {"PUT", "POST", "DELETE"}
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DAMAGED = b"<Error><Code>BadDigest</Code><Message>The SHA256 did not match.</Message></Error>"


class Faulty:
    """A WSGI application before another one: notes requests, refuses some, kills who sends one."""

    def __init__(self, app: Callable[[Environ, Start], Iterable[bytes]]) -> None:
        self.app = app
        self.log: list[str] = []
        self.fail = 0
        self.damage = 0
        self.kill: dict[str, Any] = {}
        self.lock = threading.Lock()

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            return self._obey(path.removeprefix("/-/"), environ, start)
        method = environ["REQUEST_METHOD"]
        with self.lock:
            self.log.append(f"{method} {path}")
            self.fail -= 1
            refused = self.fail >= 0
            damaged = method == "PUT" and self._damages()
            victim = self._victim(method, path)
        if refused:
            _read(environ)
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [BUSY]
        if damaged:
            _damage(environ)
        if method == "PUT" and not _arrived(environ):
            start("400 Bad Request", [("Content-Type", "application/xml")])
            return [DAMAGED]
        if victim and not self.kill["after"]:
            os.kill(victim, signal.SIGKILL)
            return _nothing(environ, start)
        answer = list(self.app(environ, start))
        if victim:
            os.kill(victim, signal.SIGKILL)
        return answer

    def _damages(self) -> bool:
        """Whether this object arrives with a wrong bit."""
        self.damage -= 1
        return self.damage >= 0

    def _victim(self, method: str, path: str) -> int | None:
        """Whom this request kills."""
        # The lease beside a store is written to by the clock, and so is no step.
        if not self.kill or method not in WRITES or ".lease/" in path:
            return None
        self.kill["step"] -= 1
        return self.kill["pid"] if self.kill["step"] == -1 else None

    def _obey(self, order: str, environ: Environ, start: Start) -> Iterable[bytes]:
        told = json.loads(_read(environ) or b"null")
        with self.lock:
            if order == "log":
                answer, self.log = self.log, []
            else:
                setattr(self, order, told)
                answer = []
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def _read(environ: Environ) -> bytes:
    data: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return data


def _damage(environ: Environ) -> None:
    data = _read(environ)
    environ["wsgi.input"] = io.BytesIO(data[:-1] + bytes([data[-1] ^ 1]))


def _arrived(environ: Environ) -> bool:
    """Whether the body has the checksum that the client sends along, as S3 looks; moto does not."""
    expected = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
    if expected is None:
        return True
    data = _read(environ)
    environ["wsgi.input"] = io.BytesIO(data)
    return base64.b64encode(hashlib.sha256(data).digest()).decode() == expected


def _nothing(environ: Environ, start: Start) -> Iterable[bytes]:
    """Take a request without doing what it says; nobody waits for the answer."""
    _read(environ)
    start("500 Killed", [])
    return []


class Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Requests are in the log of `Faulty`."""


def main() -> None:
    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    # Whoever started this process has the other end: it ends with it, however that one ends.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
