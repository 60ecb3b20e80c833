"""Names that a save dropped are told exactly, whatever else the metadata says."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.saves import FEW, holds, metadata_of
from hypothesis import given
from hypothesis import strategies as st
from windlass.torch.dropped import DROPPED_KEY, read_dropped, record_dropped

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX = "model.safetensors.index.json"
#: Names of tensors; some of them are keys or values that metadata has for other reasons.
NAMES = ("a", "b", "by", "pt", "format", "total_size", "layer.w", "windlass.x", "windlass.dropped")
#: Metadata without a meaning to anybody, and with one.
KEYS = (*NAMES[:-1], "note", "windlass.y")
SIZES = (8, "5GB")

names = st.sampled_from(NAMES)
metadata_maps = st.dictionaries(st.sampled_from(KEYS), st.sampled_from((*NAMES, "text")))


@st.composite
def tied_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Draw tensors by name, of which any may be one."""
    picks = draw(st.dictionaries(names, st.integers(0, 3)))
    bases = [torch.full((2,), float(number)) for number in range(4)]
    return {name: bases[pick] for name, pick in picks.items()}


def _model(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    model = torch.nn.Module()
    for name, tensor in state.items():
        path, _, own = name.rpartition(".")
        if path and not hasattr(model, path):
            model.add_module(path, torch.nn.Module())
        model.get_submodule(path).register_buffer(own, tensor)
    return model


def _untied(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    return _model({name: torch.full_like(tensor, -1.0) for name, tensor in state.items()})


def _untold(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key != DROPPED_KEY}


@given(tied_dicts(), metadata_maps, st.booleans())
@FEW
def test_state_dict_comes_back_with_the_names_that_it_had(
    state: dict[str, torch.Tensor],
    metadata: dict[str, str],
    checksums: bool,  # noqa: FBT001
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_torch_state_dict(state, folder, metadata=metadata, checksums=checksums)
        path = Path(folder, "model.safetensors")
        assert holds(windlass.load_state_dict_from_file(path), state)
        assert metadata_of(path).items() >= metadata.items()


@given(tied_dicts(), metadata_maps, st.sampled_from(SIZES))
@FEW
def test_model_comes_back_from_a_folder(
    state: dict[str, torch.Tensor], metadata: dict[str, str], size: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_torch_model(_model(state), folder, metadata=metadata, max_shard_size=size)
        model = _untied(state)
        windlass.load_torch_model(model, folder, strict=True)
        assert holds(model.state_dict(), state)


@given(tied_dicts(), metadata_maps)
@FEW
def test_model_comes_back_from_a_file(
    state: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        windlass.save_model(_model(state), path, metadata)
        model = _untied(state)
        assert windlass.load_model(model, path) == ([], [])
        assert holds(model.state_dict(), state)
        assert metadata_of(path).items() >= metadata.items()


@given(tied_dicts(), metadata_maps, st.sampled_from(SIZES), names)
@FEW
def test_name_that_was_not_saved_is_missing(
    state: dict[str, torch.Tensor], metadata: dict[str, str], size: Any, stranger: str
) -> None:
    state.pop(stranger, None)
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_torch_model(_model(state), folder, metadata=metadata, max_shard_size=size)
        model = _untied({**state, stranger: torch.ones(2)})
        assert windlass.load_torch_model(model, folder).missing_keys == [stranger]


@pytest.mark.parametrize(
    ("facts", "dropped", "told"),
    [
        ({}, {}, {}),
        ({"format": "pt"}, {"b": "a"}, {"format": "pt", "b": "a"}),
        ({"note": "text"}, {"b": "a"}, {"note": "text", "b": "a"}),
        ({"format": "a"}, {}, {"format": "a"}),
        ({"windlass.crc32c": "a"}, {}, {"windlass.crc32c": "a"}),
        ({DROPPED_KEY: '{"b": "a"}'}, {}, {}),
    ],
)
def test_record_that_reads_back_is_flat(
    facts: dict[str, str], dropped: dict[str, str], told: dict[str, str]
) -> None:
    assert record_dropped(facts, dropped, ["a", "pt"]) == told


@pytest.mark.parametrize(
    ("facts", "dropped", "told"),
    [
        ({"b": "mine"}, {"b": "a"}, {"b": "mine"}),
        ({"note": "a"}, {}, {"note": "a"}),
        ({"format": "pt"}, {"format": "a"}, {"format": "pt"}),
        ({}, {"format": "a"}, {}),
        ({"total_size": 8}, {"total_size": "a", "b": "a"}, {"total_size": 8, "b": "a"}),
        ({}, {"windlass.dropped": "a"}, {}),
    ],
)
def test_record_that_would_read_back_as_another_is_told_twice(
    facts: dict[str, Any], dropped: dict[str, str], told: dict[str, Any]
) -> None:
    found = record_dropped(facts, dropped, ["a", "pt"])
    assert _untold(found) == told
    assert json.loads(found[DROPPED_KEY]) == dropped
    assert read_dropped(found, ["a", "pt"]) == dropped


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "3", "null", '"a"', "[" * 100_000, None, 7, ["b"], {"b": "a"}]
)
def test_record_that_no_save_wrote_is_passed_over(text: Any) -> None:
    assert read_dropped({DROPPED_KEY: text, "c": "a"}, ["a"]) == {"c": "a"}


def test_record_never_gives_a_stored_name_another_value_nor_takes_one_from_nowhere() -> None:
    text = json.dumps({"a": "b", "c": "nobody", "d": 3, "e": ["a"], "f": "a"})
    assert read_dropped({DROPPED_KEY: text}, ["a", "b"]) == {"f": "a"}


def test_exact_record_of_shards_is_in_the_index(tmp_path: Path) -> None:
    weight = torch.ones(4)
    state = {"total_size": weight, "a": weight, "c": torch.zeros(4)}
    windlass.save_torch_state_dict(state, tmp_path, max_shard_size=16)
    told = metadata_of(tmp_path / INDEX)
    assert told["total_size"] == 32
    assert json.loads(told[DROPPED_KEY]) == {"total_size": "a"}
    assert metadata_of(tmp_path / "model-00001-of-00002.safetensors") == {"format": "pt"}
