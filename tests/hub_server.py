"""A Hugging Face hub on the loopback interface: what its client asks for, held in memory.

Small files are git's, large ones go the way of LFS. It wants the token TOKEN.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_thesecretofthetests"  # noqa: S105
LARGE = 4096
"""Bytes from which on a file goes to LFS."""


class Hub(ThreadingHTTPServer):
    """repositories: `model/user/name` -> path -> bytes. large: what went through LFS, by SHA-256.

    commits: paths of each. commits_left: after so many the hub fails; None: never. sent: bytes of
    files in commits and in uploads.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.commits_left: int | None = None
        self.sent = 0

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self, token: str | None = TOKEN, home: str = "") -> dict[str, str]:
        """For a process that is to use it, and no hub else."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE"))}
        own = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": home}
        return {**kept, **own, **({"HF_TOKEN": token} if token else {})}


def use(hub: Hub, patch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
    """Let this process use it: its client has read its environment when it was imported."""
    import huggingface_hub.constants as constants

    patch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
    patch.delenv("HF_TOKEN", raising=False)
    if token:
        patch.setenv("HF_TOKEN", token)


@contextmanager
def running() -> Iterator[Hub]:
    """A hub for the length of a block."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def blob(data: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "who are you?"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            kind = asked.get("type") or "model"
            known = f"{kind}/{name}" in self.server.repositories
            self.server.repositories.setdefault(
                f"{kind}/{name}", {".gitattributes": b"*.bin lfs\n"}
            )
            self._json({"url": f"{self.server.url}/{name}"}, 409 if known else 200)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/(model|dataset)s/(.+)/(preupload|commit)/[^/]+", path):
            kind, name, what = found.groups()
            if f"{kind}/{name}" not in self.server.repositories:
                self._json({"error": "no such repository"}, 404)
            elif what == "preupload":
                files = json.loads(body)["files"]
                modes = {f["path"]: "lfs" if f["size"] > LARGE else "regular" for f in files}
                same = {"shouldIgnore": False}
                answer = [{"path": path, "uploadMode": m, **same} for path, m in modes.items()]
                self._json({"files": answer})
            else:
                self._commit(f"{kind}/{name}", body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body)["objects"])
        else:
            self._json({"error": f"unknown {path}"}, 404)

    def do_PUT(self) -> None:
        data = self._body()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != oid:
            self._json({"error": "other bytes"}, 400)
            return
        self.server.sent += len(data)
        self.server.large[oid] = data
        self._json({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._body()
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(/.*)?", path):
            kind, name, rest = found.groups()
            files = self.server.repositories.get(f"{kind}/{name}")
            if files is None:
                self._json({"error": "no such repository"}, 404)
            elif (rest or "").startswith("/tree/"):
                self._json([self._entry(place, data) for place, data in files.items()])
            else:
                self._json({"id": name, "sha": self._head(files), "siblings": []})
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            kind = "dataset" if found.group(1) else "model"
            files = self.server.repositories.get(f"{kind}/{found.group(2)}", {})
            self._file(files, found.group(3))
        else:
            self._json({"error": f"unknown {path}"}, 404)

    def _head(self, files: dict[str, bytes]) -> str:
        return blob(json.dumps(sorted((k, blob(v)) for k, v in files.items())).encode())

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
        if len(data) > LARGE:
            sha = hashlib.sha256(data).hexdigest()
            entry |= {"lfs": {"oid": sha, "size": len(data), "pointerSize": 100}}
            entry["oid"] = "0" * 40
        return entry

    def _file(self, files: dict[str, bytes], path: str) -> None:
        data = files.get(path)
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", self._head(files))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        answer = []
        for one in objects:
            entry: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.server.large:
                # As on the real one, where to is a signed address.
                href = f"{self.server.url}/lfs/{one['oid']}"
                entry["actions"] = {"upload": {"href": href}}
            answer.append(entry)
        self._json({"transfer": "basic", "objects": answer})

    def _commit(self, repository: str, body: bytes) -> None:
        files = self.server.repositories[repository]
        if self.server.commits_left == 0:
            self._json({"error": "out of order"}, 500)
            return
        if self.server.commits_left is not None:
            self.server.commits_left -= 1
        paths = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                data = base64.b64decode(value["content"])
                self.server.sent += len(data)
                files[value["path"]] = data
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            paths += [value["path"]] if "path" in value else []
        self.server.commits.append(paths)
        kind, _, name = repository.partition("/")
        place = f"{'datasets/' if kind == 'dataset' else ''}{name}"
        url = f"{self.server.url}/{place}/commit/{self._head(files)}"
        self._json({"commitUrl": url, "commitOid": self._head(files)})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
