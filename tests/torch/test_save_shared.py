"""Names that share memory: which one is stored, what is recorded, and what is said about it."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
import windlass
import windlass.torch
from builders.saves import FEW, data_bytes, file_names, holds, metadata_of, stored_value
from hypothesis import given
from hypothesis import strategies as st
from windlass.errors import SharedTensors

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, torch.Tensor]
NAMES = ("a", "b.w", "b.x", "embed", "head", "z")
#: Two tensors that share memory without being one, and how many bytes both have.
OVERLAPS: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "nested": lambda: (w := torch.arange(6.0).reshape(2, 3), w[:1]),
    "transposed": lambda: (w := torch.arange(6.0).reshape(2, 3), w.t()),
    "reshaped": lambda: (w := torch.arange(6.0).reshape(2, 3), w.view(-1)),
    "overlapping": lambda: tuple(torch.arange(6.0).unfold(0, 4, 2)),
    "of another dtype": lambda: (w := torch.arange(6.0), w.view(torch.int32)),
    "conjugated": lambda: (w := torch.ones(3, dtype=torch.complex64) * 1j, w.conj()),
    "expanded": lambda: (w := torch.ones(1, 2), w.expand(3, 2)),
}


@st.composite
def tied_dicts(draw: st.DrawFn) -> State:
    """Draw names of whole storages, several for one tensor."""
    bases = [torch.full((n + 1, 2), float(n)) for n in range(3)]
    names = draw(st.permutations(NAMES))
    return {name: draw(st.sampled_from(bases)) for name in names[: draw(st.integers(0, 6))]}


def _groups(state: State) -> list[list[str]]:
    sets: dict[int, list[str]] = {}
    for name, tensor in state.items():
        sets.setdefault(id(tensor), []).append(name)
    return list(sets.values())


def _kept(folder: Path) -> set[str]:
    return set(safetensors.torch.load_file(folder / "model.safetensors"))


@given(tied_dicts().filter(bool), st.lists(st.sampled_from(NAMES), max_size=3))
@FEW
def test_names_and_record_are_those_of_the_hub(state: State, discard: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        theirs.mkdir()
        windlass.save_torch_state_dict(state, ours, shared_tensors_to_discard=discard)
        huggingface_hub.save_torch_state_dict(
            dict(state), theirs, shared_tensors_to_discard=discard
        )
        one, two = ours / "model.safetensors", theirs / "model.safetensors"
        assert metadata_of(one) == metadata_of(two)
        assert holds(safetensors.torch.load_file(one), safetensors.torch.load_file(two))


@given(tied_dicts())
@FEW
def test_model_is_stored_as_safetensors_stores_it(state: State) -> None:
    model = torch.nn.Module()
    for name, tensor in state.items():
        model.register_buffer(name.replace(".", "_"), tensor)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        windlass.save_model(model, ours)
        safetensors.torch.save_model(model, str(theirs))
        assert metadata_of(ours) == metadata_of(theirs)
        assert holds(safetensors.torch.load_file(ours), safetensors.torch.load_file(theirs))


def _transformers_choice(names: list[str], patterns: list[str]) -> str | None:
    """Return the name that `save_pretrained` stores (behaviour.md 2.3); None where it refuses."""
    declared = [name for name in sorted(names) if any(re.search(one, name) for one in patterns)]
    left = set(names) - set(declared[: len(names) - 1])
    return left.pop() if len(left) == 1 else None


@given(tied_dicts(), st.lists(st.sampled_from(["^b", "head", "z$", "e", r"w"]), max_size=3))
@FEW
def test_transformers_rule_is_that_of_transformers(state: State, patterns: list[str]) -> None:
    wanted = [_transformers_choice(names, patterns) for names in _groups(state)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        options: Any = {"keep": "transformers", "shared_tensors_to_discard": patterns}
        if None in wanted:
            with pytest.raises(SharedTensors):
                windlass.save_torch_state_dict(state, path, **options)
            assert file_names(path) == []
        else:
            windlass.save_torch_state_dict(state, path, **options)
            assert _kept(path) == set(wanted)


@given(tied_dicts())
@FEW
def test_first_rule_is_the_order_of_the_dict(state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_torch_state_dict(state, folder, keep="first")
        assert _kept(Path(folder)) == {names[0] for names in _groups(state)}


@given(tied_dicts(), st.lists(st.sampled_from(NAMES), unique=True))
@FEW
def test_names_to_keep_go_before_the_rule_of_the_hub(state: State, keep: list[str]) -> None:
    def choose(names: list[str]) -> str:
        return next((name for name in keep if name in names), min(names))

    with tempfile.TemporaryDirectory() as folder:
        windlass.save_torch_state_dict(state, folder, keep=keep)
        assert _kept(Path(folder)) == {choose(names) for names in _groups(state)}


@pytest.mark.parametrize("keep", ["hub", "transformers", "first", ["head", "embed"]])
def test_every_rule_stores_values_once_and_gives_all_names_back(tmp_path: Path, keep: Any) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"head": weight, "embed": weight, "other": torch.ones(2)}
    windlass.save_torch_state_dict(state, tmp_path, keep=keep, shared_tensors_to_discard=["head"])
    assert data_bytes(tmp_path / "model.safetensors") == 24 + 8
    assert holds(windlass.load_state_dict_from_file(tmp_path / "model.safetensors"), state)


@pytest.mark.parametrize("view", ["transposed", "every other", "conjugated"])
def test_tie_of_any_strides_is_stored_once(tmp_path: Path, view: str) -> None:
    """Where safetensors and transformers raise an error about a view."""
    base = torch.randn(4, 6, dtype=torch.complex64)
    tensor = {"transposed": base.t(), "every other": base[:, ::2], "conjugated": base.conj()}[view]
    windlass.save_torch_state_dict({"b": tensor, "a": tensor.view_as(tensor)}, tmp_path)
    assert metadata_of(tmp_path / "model.safetensors") == {"format": "pt", "b": "a"}
    assert holds(windlass.load_file(tmp_path / "model.safetensors"), {"a": stored_value(tensor)})


@pytest.mark.parametrize("kind", OVERLAPS)
def test_other_sharing_is_stored_in_full_and_logged_once(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = OVERLAPS[kind]()
    with caplog.at_level(logging.INFO, "windlass"):
        windlass.save_torch_state_dict({"one": one, "two": two}, tmp_path)
    assert holds(windlass.load_file(tmp_path / "model.safetensors"), {"one": one, "two": two})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert all(word in record.message for word in ("one", "two", f"{one.nbytes + two.nbytes} "))


@pytest.mark.parametrize("kind", OVERLAPS)
def test_other_sharing_can_be_refused_by_name(tmp_path: Path, kind: str) -> None:
    one, two = OVERLAPS[kind]()
    with pytest.raises(SharedTensors, match=r"(?s)one.*two") as caught:
        windlass.save_torch_state_dict({"one": one, "two": two}, tmp_path, on_overlap="error")
    assert isinstance(caught.value, RuntimeError)
    assert file_names(tmp_path) == []


def test_ties_are_not_refused_as_overlap(tmp_path: Path) -> None:
    weight = torch.ones(2)
    windlass.save_torch_state_dict({"a": weight, "b": weight}, tmp_path, on_overlap="error")
    assert _kept(tmp_path) == {"a"}


def test_tie_inside_an_overlap_is_stored_once_too(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    state = {"whole": whole, "part": whole[:2], "again": whole, "same part": whole[:2]}
    windlass.save_torch_state_dict(state, tmp_path)
    assert _kept(tmp_path) == {"again", "part"}
    assert holds(windlass.load_state_dict_from_file(tmp_path / "model.safetensors"), state)


def test_tensors_without_elements_are_each_stored(tmp_path: Path) -> None:
    empty = torch.empty(0, 3)
    windlass.save_file({"a": empty, "b": empty, "c": empty[:, :1]}, tmp_path / "a")
    assert list(windlass.load_file(tmp_path / "a")) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["identical", *OVERLAPS])
def test_save_file_and_save_refuse_sharing_by_name_as_safetensors_does(
    tmp_path: Path, kind: str
) -> None:
    same = torch.ones(2)
    one, two = (same, same) if kind == "identical" else OVERLAPS[kind]()
    for save in (windlass.save, lambda state: windlass.save_file(state, tmp_path / "a")):
        with pytest.raises(SharedTensors, match=r"(?s)Some tensors share memory.*one.*two"):
            save({"one": one, "two": two, "else": torch.ones(1)})
    assert file_names(tmp_path) == []


def test_save_file_stores_sharing_in_full_if_told_so(tmp_path: Path) -> None:
    weight = torch.ones(2)
    state = {"a": weight, "b": weight, "c": weight[:1]}
    windlass.save_file(state, tmp_path / "a", on_overlap="store")
    assert data_bytes(tmp_path / "a") == 20
    assert holds(windlass.load_file(tmp_path / "a"), state)


def test_record_of_a_sharded_checkpoint_is_in_the_index(tmp_path: Path) -> None:
    weight = torch.ones(4)
    state = {"b": weight, "a": weight, "c": torch.zeros(4)}
    windlass.save_torch_state_dict(state, tmp_path, max_shard_size=16)
    assert metadata_of(tmp_path / "model.safetensors.index.json")["b"] == "a"
    assert metadata_of(tmp_path / "model-00001-of-00002.safetensors") == {"format": "pt"}


def test_metadata_of_the_caller_goes_before_the_record(tmp_path: Path) -> None:
    weight = torch.ones(4)
    windlass.save_torch_state_dict({"a": weight, "b": weight}, tmp_path, metadata={"b": "mine"})
    assert metadata_of(tmp_path / "model.safetensors")["b"] == "mine"


def test_pickles_keep_all_sharing(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    windlass.save_torch_state_dict(
        {"a": weight, "b": weight, "c": weight[2:]}, tmp_path, safe_serialization=False
    )
    loaded = torch.load(tmp_path / "pytorch_model.bin")
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr() == loaded["c"].data_ptr() - 8


@pytest.mark.parametrize("option", [{"keep": "best"}, {"on_overlap": "ignore"}, {"keep": 3}])
def test_unknown_rule_is_named(tmp_path: Path, option: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"best|ignore|int"):
        windlass.save_torch_state_dict({}, tmp_path / "new", **option)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("kind", [set, frozenset])
def test_names_to_keep_that_have_no_order_go_by_that_of_the_dict(
    tmp_path: Path, kind: type[Any]
) -> None:
    names = [f"name {n}" for n in range(40)]
    weight = torch.ones(2)
    windlass.save_torch_state_dict(
        dict.fromkeys(reversed(names), weight), tmp_path, keep=kind(names)
    )
    assert _kept(tmp_path) == {names[-1]}
