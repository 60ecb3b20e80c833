"""Names of a checkpoint ↔ modules, device maps and shared areas, compared with 4.46.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.states import MANY
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from oracle.modules import build
from torch import nn
from windlass import modeling_utils
from windlass.errors import NoDevice
from windlass.modeling_utils import (
    ModuleUtilsMixin,
    _add_variant,
    _find_disjoint,
    _find_identical,
    check_support_param_buffer_assignment,
    expand_device_map,
    find_submodule_and_param_name,
    get_disk_only_shard_files,
    set_initialized_submodules,
)

if TYPE_CHECKING:
    from oracle.client import Oracle

LAYERS = [("linear", 2), ("norm", 2), ("relu", 1), ("linear", 2), ("embedding", 2)]
SPEC = {"layers": LAYERS, "tied": [(0, 3)]}
KEYS = sorted(build(ModuleUtilsMixin, SPEC).state_dict())

_keys = st.lists(st.sampled_from([*KEYS, "other", "layers.9.weight"]), unique=True)


def _initialised(model: nn.Module, keys: list[str]) -> list[list[str]]:
    lacking = set_initialized_submodules(model, keys)
    marked = [name for name, one in model.named_modules() if hasattr(one, "_is_hf_initialized")]
    return [list(lacking), marked]


@given(_keys)
def test_modules_left_out_are_those_of_446(oracle: Oracle, keys: list[str]) -> None:
    case = {"module": SPEC, "keys": keys}
    ours = _initialised(build(ModuleUtilsMixin, SPEC), keys)
    assert ours == oracle.ask_one("modules.initialised", case).value


class _Renaming(nn.Module):
    """Saves what is in it without its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> dict[str, Any]:
        return self.inner.state_dict(*args, prefix=prefix, **kwargs)


def test_module_that_names_its_own_is_asked_itself() -> None:
    model = nn.Sequential(_Renaming())
    assert _initialised(model, ["0.weight", "0.bias"]) == [["0.inner"], ["", "0"]]
    model = nn.Sequential(_Renaming())
    assert _initialised(model, ["0.weight"]) == [["", "0", "0.inner"], []]


@pytest.mark.parametrize("prefix", ["", "layers", "bert", "lay"])
@pytest.mark.parametrize(
    "key",
    [
        *KEYS,
        "bert.layers.0.weight",
        "layers.7.weight",
        "bert.other",
        "weight",
        "0.weight",
        "layers",
    ],
)
def test_module_of_a_name_is_that_of_446(oracle: Oracle, key: str, prefix: str) -> None:
    model = build(ModuleUtilsMixin, SPEC)
    names = {id(one): path for path, one in model.named_modules()}
    case = {"module": SPEC, "key": key, "prefix": prefix}

    def ours() -> list[Any]:
        module, name = find_submodule_and_param_name(model, key, prefix)
        return [None if module is None else names.get(id(module), "?"), name]

    assert_same(oracle.ask_one("modules.found", case), ours)


@given(
    st.lists(st.sampled_from(["layers.0.weight", "x.layers.0.weight", "other"]), unique=True),
    st.sampled_from(["", "x.", "y."]),
    st.sampled_from([torch.float32, torch.float16]),
    st.booleans(),
)
def test_tensors_may_take_the_place_of_others_as_in_446(
    oracle: Oracle, names: list[str], prefix: str, dtype: torch.dtype, refuses: Any
) -> None:
    state = {name: torch.zeros(1, dtype=dtype) for name in names}
    case = {"module": SPEC, "state": state, "prefix": prefix, "refuses": refuses}
    model = build(ModuleUtilsMixin, SPEC)
    if refuses:
        model._supports_param_buffer_assignment = False
    assert_same(
        oracle.ask_one("modules.assignable", case),
        lambda: check_support_param_buffer_assignment(model, state, prefix),
    )


def test_model_without_tensors_takes_none() -> None:
    assert not check_support_param_buffer_assignment(nn.ReLU(), {"a": torch.zeros(1)})


_paths = st.sampled_from(["", "a", "a.b", "a.bc", "ab", "a.b.weight", "c.weight"])
_names = st.sampled_from(["a.b.weight", "a.bc.weight", "ab.weight", "c.weight", "weight", "a.b"])
_devices = st.sampled_from([0, "cpu", "disk"])


@given(
    st.dictionaries(_paths, _devices), st.lists(_names, unique=True), st.sampled_from(["", "a."])
)
def test_expanded_map_is_that_of_446(
    oracle: Oracle, device_map: dict[str, Any], names: list[str], prefix: str
) -> None:
    case = {"function": "expand_device_map", "arguments": [device_map, names, prefix]}
    ours = expand_device_map(device_map, names, prefix)
    assert ours == oracle.ask_one("modules.helper", case).value


@given(
    st.dictionaries(_paths, _devices),
    st.dictionaries(_names, st.sampled_from(["1.bin", "2.bin"])),
    st.sampled_from(["", "a."]),
)
def test_files_of_the_disk_only_are_those_of_446(
    oracle: Oracle, device_map: dict[str, Any], weight_map: dict[str, str], prefix: str
) -> None:
    arguments = [device_map, {"weight_map": weight_map}, prefix]
    case = {"function": "get_disk_only_shard_files", "arguments": arguments}
    answer = oracle.ask_one("modules.helper", case)
    assert_same(answer, lambda: get_disk_only_shard_files(*arguments))


def test_tensor_without_a_device_is_named() -> None:
    with pytest.raises(NoDevice, match=r"`a\.weight`"):
        get_disk_only_shard_files({"b": 0}, {"weight_map": {"a.weight": "1.bin"}}, "")


_views = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 8), st.integers(1, 4)),
    min_size=1,
    max_size=5,
    unique_by=lambda view: view[0],
)


def _state(views: list[tuple[str, int, int]]) -> dict[str, torch.Tensor]:
    storage = torch.zeros(64)
    return {name: storage[start : start + length] for name, start, length in views}


def _naive_groups(views: list[tuple[str, int, int]]) -> list[set[str]]:
    """Names connected by elements that they share."""
    groups: list[tuple[set[str], set[int]]] = []
    for name, start, length in views:
        names, elements = {name}, set(range(start, start + length))
        apart = []
        for other_names, other_elements in groups:
            if elements & other_elements:
                names |= other_names
                elements |= other_elements
            else:
                apart.append((other_names, other_elements))
        groups = [*apart, (names, elements)]
    return [names for names, _ in groups]


@MANY
@given(_views)
def test_views_are_split_where_nothing_reaches_over(views: list[tuple[str, int, int]]) -> None:
    groups = _naive_groups(views)
    shared, disjoint = _find_disjoint([{name for name, _, _ in views}], _state(views))
    assert sorted(map(sorted, shared)) == sorted(sorted(g) for g in groups if len(g) > 1)
    assert sorted(disjoint) == sorted(name for g in groups if len(g) == 1 for name in g)


@given(_views)
def test_views_are_split_as_by_446_where_none_is_within_another(
    oracle: Oracle, views: list[tuple[str, int, int]]
) -> None:
    """4.46 compares with the last end only, not with the furthest: nested views come apart."""
    ends = [start + length for _, start, length in sorted(views, key=lambda v: (v[1], v[2]))]
    answer = oracle.ask_one("modules.areas", views)
    state = _state(views)
    shared, disjoint = _find_disjoint([set(state)], state)
    if ends == sorted(ends):
        assert [sorted(map(sorted, shared)), sorted(disjoint)] == answer.value


@given(_views)
def test_identical_views_are_those_of_446(
    oracle: Oracle, views: list[tuple[str, int, int]]
) -> None:
    state = _state(views)
    shared, same = _find_identical([set(state)], state)
    ours = [sorted(map(sorted, shared)), sorted(map(sorted, same))]
    assert ours == oracle.ask_one("modules.identical", views).value


def test_strided_views_have_their_areas_too() -> None:
    table = torch.zeros(4, 4)
    state = {"columns": table[:, :2], "rows": table[:2], "rest": torch.zeros(2)}
    assert _find_disjoint([set(state)], state) == ([{"columns", "rows"}], ["rest"])
    assert _find_identical([{"columns", "rows"}], state) == ([{"columns", "rows"}], [])


@pytest.mark.parametrize("variant", [None, "", "fp16", "a.b"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "plain"])
def test_variant_is_spelled_as_by_446(oracle: Oracle, name: str, variant: str | None) -> None:
    case = {"function": "_add_variant", "arguments": [name, variant]}
    assert _add_variant(name, variant) == oracle.ask_one("modules.helper", case).value


def test_private_names_of_446_are_found_but_not_listed_for_all() -> None:
    assert "_find_disjoint" in dir(modeling_utils)
    assert "_find_disjoint" not in modeling_utils.__all__
    with pytest.raises(AttributeError, match="_no_such_name"):
        modeling_utils._no_such_name  # noqa: B018
