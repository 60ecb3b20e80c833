"""Answers of the hub: status, headers and body, and the errors that its clients know."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes = b""


class Refused(Exception):
    def __init__(self, status: int, code: str | None = None, message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message

    def answer(self) -> Answer:
        headers = {"Content-Type": "application/json"}
        if self.code:
            headers["X-Error-Code"] = self.code
        if self.message:
            headers["X-Error-Message"] = self.message
        return Answer(self.status, headers, json.dumps({"error": self.message}).encode())


def in_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def ranged(data: bytes, wanted: str | None) -> Answer:
    """Answer with all bytes, or with those from the start of a range on."""
    if not wanted:
        return Answer(200, {"Accept-Ranges": "bytes"}, data)
    start = int(wanted.removeprefix("bytes=").partition("-")[0])
    if start >= len(data):
        raise Refused(416)
    span = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return Answer(206, {"Content-Range": span}, data[start:])
