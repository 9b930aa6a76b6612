"""A real web server on the loopback interface that can be told to fail."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """Serves `content` at every path, with byte ranges.

    cut_at: break the connection after so many bytes of a response, that many times. status: answer
    with this error. asked: the Range header of every request so far.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut_at: list[int] = []
        self.status: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []
        self.url = ""


@contextmanager
def serving(content: bytes) -> Iterator[Site]:
    site = Site(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, site)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}/archive"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    asked = request.headers.get("Range")
    site.asked.append(asked)
    if site.status is not None:
        request.send_error(site.status)
        return
    total = len(site.content)
    match = re.fullmatch(r"bytes=(\d+)-", asked or "") if site.ranges else None
    start = int(match[1]) if match else 0
    if match and start >= total:
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{total}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    request.send_response(206 if match else 200)
    if match:
        request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    request.send_header("Content-Length", str(total - start))
    request.end_headers()
    body = site.content[start:]
    request.wfile.write(body[: site.cut_at.pop(0)] if site.cut_at else body)
