"""A server of the tests' own, on this machine, which does to each file what it is told to."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """One file, and how it is sent."""

    content: bytes
    etag: str = '"1"'
    modified: str = ""
    ranges: bool = True
    break_after: list[int] = field(default_factory=list[int])
    """Bytes after which the connection ends, request by request; then it holds."""
    answers: list[int] = field(default_factory=list[int])
    """Status of the first requests."""
    length: bool = True
    chunked: bool = False
    kind: str = "application/octet-stream"
    coding: str = ""
    redirect: str = ""
    pause: float = 0
    """Seconds before each 16 KB."""
    wrong_start: bool = False


@dataclass
class Server:
    address: str
    files: dict[str, Served] = field(default_factory=dict[str, Served])
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Path and ``Range`` of each."""

    def add(self, name: str, content: bytes, **how: Any) -> str:
        self.files[f"/{name}"] = Served(content, **how)
        return f"{self.address}/{name}"


@contextmanager
def serving() -> Generator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            server.requests.append((self.path, self.headers.get("Range", "")))
            self.close_connection = True
            served = server.files.get(self.path)
            if served is None:
                self._say(404, b"gone", "text/html")
            elif served.redirect:
                self.send_response(302)
                self.send_header("Location", served.redirect)
                self.send_header("Content-Length", "0")
                self.send_header("Connection", "close")
                self.end_headers()
            elif served.answers and (status := served.answers.pop(0)) != 200:
                self._say(status, b"busy", "text/html")
            else:
                self._send(served)

        def _say(self, status: int, text: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _send(self, served: Served) -> None:
            start = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", "") in (served.etag, served.modified)
            if asked and served.ranges and same:
                start = int(asked[1])
                if start >= len(served.content):
                    return self._say(416, b"", "text/plain")
                self.send_response(206)
                first = start + 1 if served.wrong_start else start
                self.send_header("Content-Range", f"bytes {first}-{len(served.content) - 1}/{len(served.content)}")
            else:
                self.send_response(200)
            body = served.content[start:]
            self.send_header("Content-Type", served.kind)
            for name, value in (
                ("ETag", served.etag),
                ("Last-Modified", served.modified),
                ("Content-Encoding", served.coding),
            ):
                if value:
                    self.send_header(name, value)
            if served.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif served.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            whole = not served.break_after
            body = body if whole else body[: served.break_after.pop(0)]
            for at in range(0, len(body), 1 << 14):
                piece = body[at : at + (1 << 14)]
                time.sleep(served.pause)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if served.chunked else piece)
            if served.chunked and whole:
                self.wfile.write(b"0\r\n\r\n")
            return None

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
                super().handle()

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
