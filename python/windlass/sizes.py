"""Sizes as people write them → bytes."""

from __future__ import annotations

import math
import operator

_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_EXPECTED = (
    "bytes as an int of 0 or more, or text: a number of 0 or more with one of the units "
    'KB, MB, GB, TB, KiB, MiB, GiB, TiB, as in "5GB" or "4.5 GiB"'
)
_EXPECTED_BY_446 = (
    "bytes as an int of 0 or more, or text: a whole number of 0 or more with one of the units "
    'KB, MB, GB (with a small b: bits), KiB, MiB, GiB, as in "5GB"'
)


def parse_size(size: int | str) -> int:
    """Return a size in bytes, as the hub reads it, and with KiB, MiB, GiB and TiB besides.

    KB, MB, GB and TB are powers of 1000. Case and spaces do not matter, fractions are allowed:
    "5gb" is 5·10⁹ bytes here. (To 4.46's `shard_checkpoint` it is bits, see
    `convert_file_size_to_int`.)

    Args:
        size: bytes, or a number with a unit.

    Raises:
        ValueError: a negative number, or text that is no size.
        TypeError: neither an int nor a text.

    Example:
        >>> parse_size("4.5 GiB"), parse_size("300MB"), parse_size(7)
        (4831838208, 300000000, 7)
    """
    if not isinstance(size, str):
        return _bytes(size, _EXPECTED)
    text = size.strip()
    for unit_length in (3, 2):
        factor = _UNITS.get(text[-unit_length:].upper())
        if factor:
            return _scaled(size, text[:-unit_length], factor)
    raise _bad_text(size, _EXPECTED)


def convert_file_size_to_int(size: int | str) -> int:
    """Return a size in bytes, by the rule of transformers 4.46.

    Whole numbers only, no TB; case does not matter but for the last letter: "5gb" and "5Gb" are
    bits, so 625,000,000 bytes. `parse_size` reads sizes as the hub does.

    Args:
        size: bytes, or a whole number with a unit.

    Raises:
        ValueError: a negative number (4.46 takes it), or text that is no size.
        TypeError: neither an int nor a text.

    Example:
        >>> convert_file_size_to_int("5GB"), convert_file_size_to_int("5gb")
        (5000000000, 625000000)
    """
    if not isinstance(size, str):
        return _bytes(size, _EXPECTED_BY_446)
    is_binary = size.upper().endswith("IB")
    unit_length = 3 if is_binary else 2
    unit = size[-unit_length:].upper()
    try:
        number = int(size[:-unit_length])
    except ValueError:
        raise _bad_text(size, _EXPECTED_BY_446) from None
    if number < 0 or unit.startswith("T") or unit not in _UNITS:
        raise _bad_text(size, _EXPECTED_BY_446)
    is_bits = size.endswith("b") and not is_binary
    return number * _UNITS[unit] // (8 if is_bits else 1)


def _scaled(size: str, number: str, factor: int) -> int:
    try:
        scaled = float(number) * factor
    except ValueError:
        raise _bad_text(size, _EXPECTED) from None
    if not 0 <= scaled < math.inf:
        raise _bad_text(size, _EXPECTED)
    return int(scaled)


def _bytes(size: int, expected: str) -> int:
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        message = f"a size should be {expected}; found {size!r} of type {type(size).__name__}"
        raise TypeError(message)
    number = operator.index(size)
    if number < 0:
        message = f"a size should be {expected}; found {number}"
        raise ValueError(message)
    return number


def _bad_text(size: str, expected: str) -> ValueError:
    return ValueError(f"a size should be {expected}; found {size!r}")
