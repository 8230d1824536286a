"""A file server on the loopback with faults to order: the wire as it is on a bad day."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STALL = 1.5  # seconds


@dataclass
class FileServer:
    """faults: file name -> what happens at its next requests, in order; an empty list serves it properly."""

    folder: Path
    url: str = ""
    faults: dict[str, list[str | int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)


class Handler(BaseHTTPRequestHandler):
    server_files: FileServer

    def log_message(self, *_) -> None:
        """Not on the test's stderr."""

    def do_GET(self) -> None:
        files = self.server_files
        path = files.folder / self.path.lstrip("/")
        files.requests[path.name] += 1
        waiting = files.faults.get(path.name, [])
        fault = waiting.pop(0) if waiting else None
        if isinstance(fault, int) or not path.is_file():
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        data = path.read_bytes()
        if fault == "flip":
            data = data[:700] + bytes([data[700] ^ 1]) + data[701:]
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(200)
        length = len(data) // 2 if fault == "short" else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        if fault == "stall":
            time.sleep(STALL)
        if fault not in ("truncate", "short"):
            self.wfile.write(data[len(data) // 2 :])


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    """The server on a free port, until the block ends."""
    files = FileServer(folder)

    class QuietServer(ThreadingHTTPServer):
        def handle_error(self, *_) -> None:
            """A client that went away is what these tests are about."""

    server = QuietServer(("127.0.0.1", 0), type("FileHandler", (Handler,), {"server_files": files}))
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
