"""The text of an index: that of `json.dumps`, the same bytes for the same content."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windlass._rust import read_index
from windlass.index import encode_index

if TYPE_CHECKING:
    from pathlib import Path

#: Plain names, any Unicode with lone surrogates too, and what JSON must escape.
TEXTS = st.one_of(
    st.text("abh.0123456789_", max_size=8),
    st.text(st.characters(exclude_categories=[]), max_size=5),
    st.text('"\\/\n\r\t\x00\x1f\x7fé😀\ud800', max_size=5),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, TEXTS), st.dictionaries(TEXTS, VALUES, max_size=3))
def test_bytes_are_those_of_json_dumps(weight_map: dict[str, str], metadata: Any) -> None:
    content = {"weight_map": weight_map, "metadata": metadata}
    expected = json.dumps(content, indent=2, sort_keys=True) + "\n"
    assert encode_index(weight_map, metadata) == expected.encode()


@given(st.dictionaries(TEXTS, TEXTS), st.randoms())
def test_order_of_the_caller_leaves_no_trace(weight_map: dict[str, str], random: Any) -> None:
    entries = list(weight_map.items())
    random.shuffle(entries)
    metadata = {"total_size": 1, "total_parameters": 2}
    turned = dict(reversed(metadata.items()))
    assert encode_index(dict(entries), turned) == encode_index(weight_map, metadata)


def test_engine_reads_what_is_written(tmp_path: Path) -> None:
    weight_map = {"é😀\n": "b.safetensors", "a": "a.safetensors", "": "b.safetensors"}
    path = tmp_path / "index.json"
    path.write_bytes(encode_index(weight_map, {"total_size": 3}))
    assert read_index(path)[0] == weight_map


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_index({}, {"loss": number})


def test_metadata_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        encode_index({}, {"names": {"a"}})
