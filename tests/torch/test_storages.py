"""What identifies a storage, and how large it is: equal to the hub's answers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
from builders.states import VIEWS, state_dicts
from huggingface_hub.serialization import _torch as hub
from hypothesis import given
from torch.testing._internal.two_tensor import TwoTensor
from windlass.torch import (
    get_torch_storage_id,
    get_torch_storage_size,
    split_torch_state_dict_into_shards,
)
from windlass.torch.storages import id_tensor_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

TENSORS = tuple(kind for kind in VIEWS if kind != "text")


def _check_equals_the_hubs(tensor: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        assert get_torch_storage_id(tensor) == hub.get_torch_storage_id(tensor)
    assert get_torch_storage_size(tensor) == hub.get_torch_storage_size(tensor)


@given(state_dicts(kinds=TENSORS))
def test_id_and_size_equal_the_hubs(state: dict[str, torch.Tensor]) -> None:
    for tensor in state.values():
        _check_equals_the_hubs(tensor)


def test_subclass_that_wraps_tensors_counts_as_what_it_wraps() -> None:
    first, second = torch.zeros(3), torch.zeros(3)
    wrapper = TwoTensor(first, TwoTensor(second, torch.zeros(3)))
    _check_equals_the_hubs(wrapper)
    assert get_torch_storage_size(wrapper) == 36
    again = TwoTensor(first, wrapper.b)
    assert get_torch_storage_id(again) == get_torch_storage_id(wrapper)
    split = split_torch_state_dict_into_shards({"a": wrapper, "b": again}, sizes="logical")
    assert split.metadata == {"total_size": 36}


@pytest.fixture
def two_processes() -> Iterator[None]:
    """A process group that claims to be two, and sends nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("two_processes")
def test_dtensor_is_known_by_its_part_and_counts_whole() -> None:
    from torch.distributed.tensor import DeviceMesh, DTensor, Shard

    local = torch.zeros(4, 2)
    whole = DTensor.from_local(local, DeviceMesh("cpu", [0, 1]), [Shard(0)])
    _check_equals_the_hubs(whole)
    assert get_torch_storage_size(whole) == 2 * local.nbytes
    state = {"whole": whole, "again": DTensor.from_local(local, whole.device_mesh, [Shard(0)])}
    for sizes in ("storage", "logical"):
        split = split_torch_state_dict_into_shards(state, sizes=sizes)
        assert split.metadata == {"total_size": 2 * local.nbytes}


def test_meta_tensors_share_with_none() -> None:
    meta = torch.zeros(3, device="meta")
    assert get_torch_storage_id(meta) is None
    assert get_torch_storage_size(meta) == 12
    assert id_tensor_storage(meta) == (torch.device("meta"), 0, 12)


@given(state_dicts(kinds=TENSORS))
def test_id_of_446_is_the_hubs_where_that_has_one(state: dict[str, torch.Tensor]) -> None:
    for tensor in state.values():
        assert get_torch_storage_id(tensor) in (None, id_tensor_storage(tensor))


@pytest.mark.parametrize(
    "function", [get_torch_storage_id, get_torch_storage_size, id_tensor_storage]
)
def test_what_is_no_tensor_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a torch\.Tensor, found ndarray"):
        function(torch.zeros(2).numpy())
