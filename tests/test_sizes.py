"""Sizes as text: what the hub reads, and binary units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders.states import MANY
from huggingface_hub.serialization._base import parse_size_to_int
from hypothesis import given
from hypothesis import strategies as st
from windlass.sizes import convert_file_size_to_int, parse_size

UNITS = ("KB", "MB", "GB", "TB", "kb", "mB", "Gb", "tb")
NUMBERS = st.one_of(
    st.integers(0, 10**20).map(str),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(min_value=0, max_value=10**6, places=3).map(str),
)
SPACES = st.sampled_from(["", " ", "  ", "\t"])


@MANY
@given(SPACES, NUMBERS, SPACES, st.sampled_from(UNITS), SPACES)
def test_decimal_units_are_read_as_by_the_hub(
    before: str, number: str, between: str, unit: str, after: str
) -> None:
    text = f"{before}{number}{between}{unit}{after}"
    try:
        expected = parse_size_to_int(text)
    except OverflowError:  # The hub's word for more than a float holds.
        with pytest.raises(ValueError, match="found"):
            parse_size(text)
    else:
        assert parse_size(text) == expected


@MANY
@given(st.text("0123456789.-+eEinfa_ KMGTBbkmgt", max_size=8))
def test_what_the_hub_refuses_is_refused(text: str) -> None:
    if not text.strip().upper().endswith("IB"):
        try:
            expected = parse_size_to_int(text)
        except (ValueError, OverflowError):
            expected = -1
        if expected < 0:
            with pytest.raises(ValueError, match="found"):
                parse_size(text)
        else:
            assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0),
        (7, 7),
        (10**30, 10**30),
        (np.int64(9), 9),
        ("5GB", 5 * 10**9),
        ("5gb", 5 * 10**9),
        ("4.5 GiB", 9 * 2**29),
        ("1kib", 1024),
        ("2 MiB", 2**21),
        ("0.5TiB", 2**39),
        ("300MB", 300 * 10**6),
        ("0KB", 0),
        (" 1e3 KB ", 10**6),
    ],
)
def test_size_is_read(size: Any, expected: int) -> None:
    assert parse_size(size) == expected
    assert type(parse_size(size)) is int


BAD_TEXTS = ["", "5", "GB", "5 B", "5PB", "fiveGB", "-1GB", "nanGB", "infMB", "1e999KB", "5 G B"]


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_text_is_told_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="KB, MB, GB, TB, KiB, MiB, GiB, TiB, as in") as caught:
        parse_size(text)
    assert str(caught.value).endswith(f"found {text!r}")


@pytest.mark.parametrize("read", [parse_size, convert_file_size_to_int])
def test_negative_number_is_refused(read: Any) -> None:
    with pytest.raises(ValueError, match=r"of 0 or more.*found -1"):
        read(-1)


@pytest.mark.parametrize("read", [parse_size, convert_file_size_to_int])
@pytest.mark.parametrize("size", [True, 1.5, None, b"5GB", [5]])
def test_other_types_are_refused(read: Any, size: Any) -> None:
    with pytest.raises(TypeError, match=f"of type {type(size).__name__}"):
        read(size)
