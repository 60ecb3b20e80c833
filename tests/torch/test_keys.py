"""Which names are reported as missing, unexpected or of another shape, in what order and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from builders.bits import fingerprint
from builders.sharded import write_model
from torch import nn
from windlass.errors import IncompatibleKeys, WindlassError

if TYPE_CHECKING:
    from pathlib import Path


class Layered(nn.Module):
    """A model whose model order is neither alphabetical nor the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Linear(2, 3)
        self.a = nn.Linear(3, 2)
        self.register_buffer("m", torch.zeros(2))


STATE = {
    "a.bias": torch.ones(2),
    "m": torch.ones(2),
    "z.bias": torch.ones(3),
    "a.weight": torch.ones(2, 3),
    "z.weight": torch.ones(3, 2),
}


def _without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in STATE.items() if name not in names}


def test_missing_keys_come_in_model_order(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", _without("a.bias", "z.weight", "m"))
    result = windlass.load_sharded_checkpoint(Layered(), folder, strict=False)
    assert result.missing_keys == ["m", "z.weight", "a.bias"]


def test_unexpected_keys_come_in_index_order(tmp_path: Path) -> None:
    state = {"zz": torch.ones(1), **STATE, "aa": torch.ones(1), "a.extra": torch.ones(1)}
    folder = write_model(tmp_path / "c", state, count=3)
    result = windlass.load_sharded_checkpoint(Layered(), folder, strict=False)
    assert result == ([], ["zz", "aa", "a.extra"])


def test_parameter_registered_as_none_is_not_expected(tmp_path: Path) -> None:
    model = nn.Linear(2, 2, bias=False)
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    folder = write_model(tmp_path / "c", state)
    assert windlass.load_sharded_checkpoint(model, folder, strict=False) == ([], ["bias"])
    assert model.bias is None


def test_rest_is_loaded_when_not_strict(tmp_path: Path) -> None:
    model = Layered()
    folder = write_model(tmp_path / "c", {**_without("a.bias"), "new": torch.ones(1)})
    windlass.load_sharded_checkpoint(model, folder, strict=False)
    assert torch.equal(model.z.weight, torch.ones(3, 2))
    assert torch.equal(model.m, torch.ones(2))


def test_strict_error_lists_names_and_begins_with_torchs_words(tmp_path: Path) -> None:
    model = Layered()
    before = fingerprint(model)
    folder = write_model(tmp_path / "c", {"new": torch.ones(1), **_without("z.bias", "a.bias")})
    with pytest.raises(IncompatibleKeys) as caught:
        windlass.load_sharded_checkpoint(model, folder)
    error = caught.value
    assert str(error).startswith("Error(s) in loading state_dict for Layered")
    assert all(name in str(error) for name in ("new", "z.bias", "a.bias"))
    assert error.missing_keys == ["z.bias", "a.bias"]
    assert error.unexpected_keys == ["new"]
    assert error.mismatched_keys == []
    assert fingerprint(model) == before


def test_strict_error_says_what_is_missing_and_what_is_unexpected(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", {"new": torch.ones(1), **_without("m")})
    with pytest.raises(IncompatibleKeys, match=r"(?s)Missing key.*m.*Unexpected key.*new"):
        windlass.load_sharded_checkpoint(Layered(), folder)


@pytest.mark.parametrize("strict", [True, False])
def test_size_mismatch_is_an_error_with_both_shapes(tmp_path: Path, *, strict: bool) -> None:
    model = Layered()
    before = fingerprint(model)
    state = {**STATE, "z.weight": torch.ones(3, 5), "a.bias": torch.ones(4)}
    with pytest.raises(IncompatibleKeys) as caught:
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state), strict)
    assert caught.value.mismatched_keys == [
        ("z.weight", (3, 5), (3, 2)),
        ("a.bias", (4,), (2,)),
    ]
    assert str(caught.value).startswith("Error(s) in loading state_dict for Layered")
    assert all(word in str(caught.value) for word in ("z.weight", "a.bias", "5", "4"))
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    ("file_shape", "model_shape"),
    [((6,), (2, 3)), ((2, 3), (3, 2)), ((1, 1), ()), ((), (1,)), ((2,), ()), ((0,), (0, 3))],
)
def test_shapes_of_equal_or_other_size_are_never_bent(
    tmp_path: Path, file_shape: tuple[int, ...], model_shape: tuple[int, ...]
) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(model_shape))
    folder = write_model(tmp_path / "c", {"weight": torch.ones(file_shape)}, count=1)
    with pytest.raises(IncompatibleKeys) as caught:
        windlass.load_sharded_checkpoint(model, folder)
    assert caught.value.mismatched_keys == [("weight", file_shape, model_shape)]


def test_all_complaints_come_in_one_error(tmp_path: Path) -> None:
    state = {"new": torch.ones(1), **_without("m"), "a.bias": torch.ones(4)}
    with pytest.raises(IncompatibleKeys) as caught:
        windlass.load_sharded_checkpoint(Layered(), write_model(tmp_path / "c", state))
    error = caught.value
    assert (error.missing_keys, error.unexpected_keys) == (["m"], ["new"])
    assert error.mismatched_keys == [("a.bias", (4,), (2,))]


def test_key_errors_are_runtime_errors_as_in_446(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", _without("m"))
    with pytest.raises(RuntimeError) as caught:
        windlass.load_sharded_checkpoint(Layered(), folder)
    assert isinstance(caught.value, WindlassError)


@pytest.mark.parametrize(
    "name", ["", "weight\n", "wörter", "a/b", "\U0001f40c", "_extra_state", "x" * 3000, "a..b"]
)
def test_any_name_can_be_unexpected(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "c", {**STATE, name: torch.ones(1)})
    assert windlass.load_sharded_checkpoint(Layered(), folder, strict=False) == ([], [name])


@pytest.mark.parametrize("name", ["wörter", "\U0001f40c", "a-b", "x" * 300])
def test_any_name_can_be_a_parameter(tmp_path: Path, name: str) -> None:
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(2))})
    folder = write_model(tmp_path / "c", {name: torch.ones(2)}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert torch.equal(model[name], torch.ones(2))


def test_name_that_only_begins_like_a_module_is_unexpected(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", {**STATE, "zeta.weight": torch.ones(1)})
    assert windlass.load_sharded_checkpoint(Layered(), folder, strict=False).unexpected_keys == [
        "zeta.weight"
    ]
