"""`assign=True`: parameters and buffers are replaced by loaded tensors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import contents, fingerprint, random_tensor, same_bits
from builders.oracle import load_merged
from builders.sharded import write_model
from torch import nn
from windlass.errors import IncompatibleKeys

if TYPE_CHECKING:
    from pathlib import Path


class LanguageModel(nn.Module):
    """A tied model with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight


def _state(model: nn.Module, *absent: str) -> dict[str, torch.Tensor]:
    return {
        name: random_tensor(tuple(tensor.shape), tensor.dtype, seed)
        for seed, (name, tensor) in enumerate(model.state_dict().items())
        if name not in absent
    }


def _meta(build: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = build()
    return model


@pytest.mark.parametrize("memory", ["mapped", "owned"])
def test_meta_model_is_filled(tmp_path: Path, memory: Any) -> None:
    model = _meta(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    state = _state(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    folder = write_model(tmp_path / "c", state)
    assert windlass.load_sharded_checkpoint(model, folder, assign=True, memory=memory) == ([], [])
    assert all(same_bits(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_result_is_that_of_load_state_dict_with_assign(tmp_path: Path) -> None:
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours[0].bias.requires_grad_(requires_grad=False)
    reference = copy.deepcopy(ours)
    state = {name: t.to(torch.bfloat16) for name, t in _state(ours).items()}
    folder = write_model(tmp_path / "c", state)
    load_merged(reference, folder, assign=True)
    windlass.load_sharded_checkpoint(ours, folder, assign=True)
    assert contents(ours) == contents(reference)
    assert isinstance(ours[0].weight, nn.Parameter)
    assert "running_mean" in dict(ours[1].named_buffers())


def test_tie_of_a_meta_model_is_filled_and_stays_a_tie(tmp_path: Path) -> None:
    model = _meta(LanguageModel)
    state = _state(LanguageModel(), "head.weight")
    result = windlass.load_sharded_checkpoint(
        model, write_model(tmp_path / "c", state), assign=True
    )
    assert result == ([], [])
    assert model.head.weight is model.embedding.weight
    assert same_bits(model.head.weight, state["embedding.weight"])


def test_tie_of_which_both_names_are_present_stays_a_tie(tmp_path: Path) -> None:
    model, state = _meta(LanguageModel), _state(LanguageModel())
    state["head.weight"] = state["embedding.weight"]
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state), assign=True)
    assert model.head.weight is model.embedding.weight


def test_assigned_tensors_are_writable_and_own_their_storage(tmp_path: Path) -> None:
    model = _meta(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    state = _state(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    folder = write_model(tmp_path / "c", state, count=1)
    files = {file: file.read_bytes() for file in folder.iterdir()}
    windlass.load_sharded_checkpoint(model, folder, assign=True)
    storages = [parameter.untyped_storage() for parameter in model.parameters()]
    assert len({storage.data_ptr() for storage in storages}) == len(storages)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    assert {file: file.read_bytes() for file in folder.iterdir()} == files


def test_owned_assigned_tensors_do_not_depend_on_the_files(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    state = _state(model)
    folder = write_model(tmp_path / "c", state)
    windlass.load_sharded_checkpoint(model, folder, assign=True, memory="owned")
    for shard in folder.glob("*.safetensors"):
        shard.write_bytes(bytes(shard.stat().st_size))
    assert all(same_bits(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_absent_parameter_stays_on_meta_when_not_strict(tmp_path: Path) -> None:
    model = _meta(lambda: nn.Linear(3, 4))
    folder = write_model(tmp_path / "c", _state(nn.Linear(3, 4), "bias"), count=1)
    result = windlass.load_sharded_checkpoint(model, folder, strict=False, assign=True)
    assert result == (["bias"], [])
    assert model.bias.is_meta
    assert not model.weight.is_meta


@pytest.mark.parametrize("strict", [True, False])
def test_size_mismatch_leaves_the_model_untouched(tmp_path: Path, *, strict: bool) -> None:
    model = nn.Linear(3, 4)
    before = fingerprint(model)
    folder = write_model(tmp_path / "c", {**_state(model), "bias": torch.ones(5)})
    with pytest.raises(IncompatibleKeys, match="bias"):
        windlass.load_sharded_checkpoint(model, folder, strict, assign=True)
    assert fingerprint(model) == before


def test_interrupted_assignment_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    class Interrupted(dict[str, Any]):
        """Is interrupted at its second change."""

        changes = 0

        def __setitem__(self, key: str, value: object) -> None:
            super().__setitem__(key, value)
            self.changes += 1
            if self.changes == 2:
                raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    folder = write_model(tmp_path / "c", _state(model))
    before, tensors = fingerprint(model), list(model.parameters())
    model[0]._parameters = Interrupted(model[0]._parameters)
    with pytest.raises(KeyboardInterrupt) as caught:
        windlass.load_sharded_checkpoint(model, folder, assign=True)
    assert caught.value.__notes__ == ["The model has not been changed."]
    assert fingerprint(model) == before
    assert all(a is b for a, b in zip(model.parameters(), tensors, strict=True))


def test_training_goes_on_after_assignment(tmp_path: Path) -> None:
    model = _meta(lambda: nn.Linear(3, 1))
    state = {"weight": torch.ones(1, 3), "bias": torch.zeros(1)}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state), assign=True)
    model(torch.ones(2, 3)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    assert torch.equal(model.weight.detach(), torch.zeros(1, 3))
