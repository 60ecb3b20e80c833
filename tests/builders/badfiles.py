"""Bad files: how to make each, what it is, and the words its error must have."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from typing import TYPE_CHECKING, NamedTuple

from windlass import errors

from builders.files import info, write_header, write_raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_HEADER = 100_000_000
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


class Bad(NamedTuple):
    """One kind of bad file."""

    write: Callable[[Path], object]
    error: type[errors.WindlassError]
    words: tuple[str, ...] = ()


def _header(data: bytes = b"", **tensors: object) -> Callable[[Path], object]:
    return lambda path: write_header(path, tensors, data)


def _raw(header: bytes, data: bytes = b"", length: int | None = None) -> Callable[[Path], object]:
    return lambda path: write_raw(path, header, data, length=length)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1))
        file.truncate(MAX_HEADER + 1000)


GOOD = info("F32", [2], 0, 8)
TWO_MILLION = 1 << 21
BAD: dict[str, Bad] = {
    "absent": Bad(lambda path: path, errors.ShardNotFound),
    "empty": Bad(_bytes(b""), errors.EmptyFile),
    "directory": Bad(lambda path: path.mkdir(), errors.NotARegularFile),
    "fifo": Bad(os.mkfifo, errors.NotARegularFile),
    "seven bytes": Bad(_bytes(b"\0" * 7), errors.TruncatedFile, ("7", "8")),
    "git-lfs pointer": Bad(_bytes(LFS), errors.GitLfsPointer, ("git-lfs",)),
    "GGUF": Bad(_bytes(b"GGUF" + struct.pack("<IQQ", 3, 291, 23)), errors.InvalidHeader, ("GGUF",)),
    "torch's zip": Bad(_zip, errors.InvalidHeader, ("torch.save", "safe=False")),
    "web page": Bad(
        _bytes(b"<!DOCTYPE html><html>Sign in"), errors.InvalidHeader, ("web page", "download")
    ),
    "index in its place": Bad(
        _bytes(b'{"metadata": {}, "weight_map": {}}'), errors.InvalidHeader, ("index", "folder")
    ),
    "text of an error": Bad(_bytes(b"Entry not found"), errors.InvalidHeader, ("text", "download")),
    "header beyond the end": Bad(_raw(b"{}", length=5000), errors.TruncatedFile, ("5008", "10")),
    "header over the limit": Bad(_large, errors.InvalidHeader, (str(MAX_HEADER + 1),)),
    "header of all ones": Bad(_raw(b"{}", length=2**64 - 1), errors.InvalidHeader),
    "header of no length": Bad(_raw(b"", length=0), errors.InvalidHeader),
    "invalid UTF-8": Bad(_raw(b'{"\xff\xfe":{}}'), errors.InvalidHeader, ("UTF-8",)),
    "not JSON": Bad(_raw(b"this is not JSON"), errors.InvalidHeader, ("JSON",)),
    "JSON that is cut off": Bad(_raw(b'{"x":{"dtype":"F32"'), errors.InvalidHeader),
    "JSON list": Bad(_raw(b"[]      "), errors.InvalidHeader),
    "trailing NUL": Bad(_raw(b"{}\0\0\0\0\0\0"), errors.InvalidHeader),
    "unknown dtype": Bad(
        _header(bytes(8), weird=info("F99", [2], 0, 8)), errors.InvalidHeader, ("weird", "F99")
    ),
    "dtype in lower case": Bad(
        _header(bytes(8), x=info("f32", [2], 0, 8)), errors.InvalidHeader, ("x", "f32")
    ),
    "no dtype": Bad(
        _header(bytes(8), lone={"shape": [2], "data_offsets": [0, 8]}),
        errors.InvalidHeader,
        ("lone", "dtype"),
    ),
    "no shape": Bad(
        _header(bytes(8), lone={"dtype": "F32", "data_offsets": [0, 8]}),
        errors.InvalidHeader,
        ("lone", "shape"),
    ),
    "no offsets": Bad(
        _header(bytes(8), lone={"dtype": "F32", "shape": [2]}),
        errors.InvalidHeader,
        ("lone", "data_offsets"),
    ),
    "negative shape": Bad(
        _header(bytes(8), lone=info("F32", [-2], 0, 8)), errors.InvalidHeader, ("lone", "-2")
    ),
    "shape of fractions": Bad(
        _raw(b'{"x":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', bytes(8)),
        errors.InvalidHeader,
    ),
    "hole in front": Bad(
        _header(bytes(16), late=info("F32", [2], 8, 16)), errors.InvalidHeader, ("late", "8", "0")
    ),
    "hole between": Bad(
        _header(bytes(24), first=GOOD, late=info("F32", [2], 16, 24)),
        errors.InvalidHeader,
        ("late", "16", "8"),
    ),
    "overlap": Bad(
        _header(bytes(12), first=GOOD, second=info("F32", [2], 4, 12)),
        errors.InvalidHeader,
        ("second", "4", "8"),
    ),
    "one range twice": Bad(
        _header(bytes(8), first=GOOD, second=GOOD), errors.InvalidHeader, ("second",)
    ),
    "range that ends before it starts": Bad(
        _header(bytes(8), first=GOOD, second=info("F32", [0], 8, 4)), errors.InvalidHeader
    ),
    "shape larger than its range": Bad(
        _header(bytes(8), small=info("F32", [3, 7], 0, 8)),
        errors.InvalidHeader,
        ("small", "84", "8"),
    ),
    "shape smaller than its range": Bad(
        _header(bytes(88), roomy=info("F32", [3], 0, 88)),
        errors.InvalidHeader,
        ("roomy", "12", "88"),
    ),
    "shape that overflows": Bad(
        _header(bytes(8), huge=info("F32", [1 << 32, 1 << 32, 4], 0, 8)),
        errors.InvalidHeader,
        ("huge",),
    ),
    "shape that wraps to zero": Bad(
        _header(b"", huge=info("U8", [1 << 32, 1 << 32], 0, 0)), errors.InvalidHeader, ("huge",)
    ),
    "byte count that overflows": Bad(
        _header(bytes(8), huge=info("F64", [1 << 61], 0, 8)), errors.InvalidHeader, ("huge",)
    ),
    "half a byte": Bad(
        _header(bytes(2), nibble=info("F4", [3], 0, 2)), errors.InvalidHeader, ("nibble",)
    ),
    "offsets over 64 bits": Bad(
        _raw(b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,99999999999999999999]}}', b"0"),
        errors.InvalidHeader,
    ),
    "offsets far beyond the end": Bad(
        _header(bytes(8), far=info("U8", [TWO_MILLION], 0, TWO_MILLION)), errors.TruncatedFile
    ),
    "trailing bytes": Bad(_header(bytes(9), x=GOOD), errors.InvalidHeader, ("80", "81")),
    "trailing bytes after nothing": Bad(_header(b"1"), errors.InvalidHeader),
    "truncated data": Bad(_header(bytes(7), x=GOOD), errors.TruncatedFile),
    "no data at all": Bad(_header(b"", x=GOOD), errors.TruncatedFile),
    "metadata of numbers": Bad(_raw(b'{"__metadata__":{"a":1}}'), errors.InvalidHeader),
    "metadata twice": Bad(
        _raw(b'{"__metadata__":{},"__metadata__":{"a":"b"}}'), errors.InvalidHeader
    ),
    "a name twice with two ranges": Bad(
        _raw(
            b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            b"01",
        ),
        errors.InvalidHeader,
        ("x",),
    ),
    "nested too deep": Bad(_raw(b'{"x":' + b"[" * 100_000), errors.InvalidHeader),
}

_ENTRY = json.dumps(GOOD).encode()
LOOSE: dict[str, tuple[bytes, bytes, str]] = {
    "a name twice": (b'{"x":' + _ENTRY + b',"x":' + _ENTRY + b"}", bytes(8), "x"),
    "a space before the brace": (b' {"x":' + _ENTRY + b"}", bytes(8), ""),
    "a newline before the brace": (b'\n{"x":' + _ENTRY + b"}", bytes(8), ""),
    "an unknown field": (
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"crc":1}}',
        bytes(8),
        "crc",
    ),
}
