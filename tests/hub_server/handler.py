"""HTTP: a request → what is asked → the answer, with what the faults make of it."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hub_server.answers import Answer, Refused

if TYPE_CHECKING:
    from hub_server.faults import Fault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Be silent."""

    def _serve(self) -> None:
        from hub_server.server import Asked, Seen

        hub = self.server.hub
        parts = urlsplit(self.path)  # Of a request to a proxy, the whole address.
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        wanted, agent = self.headers.get("Range"), self.headers.get("User-Agent") or ""
        hub.seen.append(Seen(self.command, self.path, token, wanted, agent))
        asked = Asked(self.command, parts.path, parts.query, token, wanted, self._read_body())
        fault = hub.faults.take(self.command, asked.path)
        if fault and fault.status:
            self._send(Answer(fault.status, dict(fault.headers)), None)
            return
        try:
            answer = self.server.answer(asked)
        except Refused as refused:
            answer = refused.answer()
        self._send(answer, fault)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self._read_chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _read_chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = _spoil(answer.body, fault)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)


def _spoil(body: bytes, fault: Fault | None) -> bytes:
    if fault and fault.damage and body:
        return body[:-1] + bytes([body[-1] ^ 1])
    return body + bytes(fault.longer_by) if fault else body
