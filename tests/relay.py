"""A relay of TCP connections that a test can cut."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Self


class Relay:
    """Passes what connects to it on to a port of the loopback interface, in threads."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """port: to pass on to. host: to listen at."""
        self._to = port
        self._server = socket.create_server((host, 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []
        self._refusing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End all connections."""
        while self._open:
            end = self._open.pop()
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """For the length of a block every connection ends."""
        self._refusing.set()
        self.cut()
        try:
            yield
        finally:
            self._refusing.clear()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._server.accept()
            except OSError:
                return
            if self._refusing.is_set():
                one.close()
                continue
            try:
                other = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                one.close()
                continue
            self._open += [one, other]
            for ends in ((one, other), (other, one)):
                threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
