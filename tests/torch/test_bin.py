"""`.bin` checkpoints: read safely, checked like any other, and refused with a clear word."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import contents, fingerprint
from builders.oracle import load_446
from builders.sharded import BIN_INDEX, deal, write_bin, write_bin_shards, write_index
from torch import nn
from windlass.errors import (
    CheckpointError,
    IncompatibleKeys,
    IndexMismatch,
    InvalidPickle,
    ShardNotFound,
    UnsafeShardName,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = {"weight": torch.arange(4.0).view(2, 2), "bias": torch.ones(2)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"


class Trap:
    """Runs code when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a checkpoint was run",))


def _shards(folder: Path) -> Path:
    return write_bin_shards(folder, deal(STATE, range(2), "bin"))


def _refused(model: nn.Module, folder: Path, error: type[Exception], *, strict: bool) -> str:
    before = fingerprint(model)
    with pytest.raises(error) as caught:
        windlass.load_sharded_checkpoint(model, folder, strict)
    assert fingerprint(model) == before
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
def test_shards_are_loaded_like_the_446_rule(tmp_path: Path, dtype: torch.dtype) -> None:
    ours, reference = nn.Linear(2, 2, dtype=dtype), nn.Linear(2, 2, dtype=dtype)
    folder = _shards(tmp_path / "c")
    assert windlass.load_sharded_checkpoint(ours, folder) == ([], [])
    load_446(reference, folder)
    assert contents(ours) == contents(reference)


def test_views_and_strides_inside_a_pickle_are_read_right(tmp_path: Path) -> None:
    memory = torch.arange(24.0).view(4, 6)
    state = {"weight": memory[:2, ::3].t(), "bias": memory[3, 4:]}
    write_bin(tmp_path / "pytorch_model.bin", state)
    model = nn.Linear(2, 2)
    windlass.load_sharded_checkpoint(model, tmp_path)
    assert torch.equal(model.weight, state["weight"])
    assert torch.equal(model.bias, state["bias"])


def test_file_of_the_old_format_without_zip_is_read(tmp_path: Path) -> None:
    """The 4.46 rule reads it; it cannot be mapped, which must not be the user's problem."""
    path = tmp_path / "pytorch_model.bin"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    model = nn.Linear(2, 2)
    assert windlass.load_sharded_checkpoint(model, tmp_path) == ([], [])
    assert torch.equal(model.weight, STATE["weight"])


def test_ordered_dict_with_metadata_is_read(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "pytorch_model.bin")
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path) == ([], [])


def test_parameters_inside_a_pickle_are_copied_like_tensors(tmp_path: Path) -> None:
    source = nn.Linear(2, 2)
    write_bin(tmp_path / "pytorch_model.bin", dict(source.named_parameters()))
    model = nn.Linear(2, 2)
    windlass.load_sharded_checkpoint(model, tmp_path)
    assert contents(model) == contents(source)


def _trap(path: Path) -> None:
    torch.save({**STATE, "x": Trap()}, path)


def _bare_trap(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


BAD: dict[str, Callable[[Path], Any]] = {
    "runs code": _trap,
    "runs code, without zip": _bare_trap,
    "cut off": _cut_off,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a pickle"),
    "a list": lambda path: torch.save([torch.ones(2)], path),
    "a tensor": lambda path: torch.save(torch.ones(2), path),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("fault", BAD)
def test_bad_pickle_is_refused_by_name(tmp_path: Path, fault: str, *, strict: bool) -> None:
    folder = _shards(tmp_path / "c")
    shard = max(folder.glob("*.bin"))
    BAD[fault](shard)
    message = _refused(nn.Linear(2, 2), folder, CheckpointError, strict=strict)
    assert shard.name in message


def test_pickle_that_would_run_code_is_an_invalid_pickle(tmp_path: Path) -> None:
    _trap(tmp_path / "pytorch_model.bin")
    _refused(nn.Linear(2, 2), tmp_path, InvalidPickle, strict=True)


@pytest.mark.parametrize("strict", [True, False])
def test_lfs_pointer_is_called_one(tmp_path: Path, *, strict: bool) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(LFS)
    message = _refused(nn.Linear(2, 2), tmp_path, CheckpointError, strict=strict)
    assert "git-lfs" in message


@pytest.mark.parametrize("strict", [True, False])
def test_missing_shard_is_named(tmp_path: Path, *, strict: bool) -> None:
    folder = _shards(tmp_path / "c")
    shard = max(folder.glob("*.bin"))
    shard.unlink()
    assert shard.name in _refused(nn.Linear(2, 2), folder, ShardNotFound, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_unsafe_shard_name_is_refused(tmp_path: Path, *, strict: bool) -> None:
    write_bin(tmp_path / "outside.bin", STATE)
    folder = tmp_path / "c"
    folder.mkdir()
    write_index(folder / BIN_INDEX, dict.fromkeys(STATE, "../outside.bin"))
    _refused(nn.Linear(2, 2), folder, UnsafeShardName, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_name_absent_from_its_shard_is_an_error(tmp_path: Path, *, strict: bool) -> None:
    folder = _shards(tmp_path / "c")
    files = sorted(file.name for file in folder.glob("*.bin"))
    write_index(folder / BIN_INDEX, dict.fromkeys(STATE, files[0]))
    message = _refused(nn.Linear(2, 2), folder, IndexMismatch, strict=strict)
    assert "bias" in message
    assert files[0] in message


@pytest.mark.parametrize("strict", [True, False])
def test_name_in_two_shards_is_an_error(tmp_path: Path, *, strict: bool) -> None:
    shards = deal(STATE, range(2), "bin")
    shards[min(shards)]["bias"] = torch.zeros(2)
    folder = write_bin_shards(tmp_path / "c", shards)
    message = _refused(nn.Linear(2, 2), folder, IndexMismatch, strict=strict)
    assert all(word in message for word in ("bias", *shards))


def test_unlisted_name_is_unexpected_when_not_strict(tmp_path: Path) -> None:
    folder = _shards(tmp_path / "c")
    shard = min(folder.glob("*.bin"))
    write_bin(shard, {"weight": STATE["weight"], "stowaway": torch.ones(1)})
    with pytest.warns(UserWarning, match="stowaway"):
        result = windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder, strict=False)
    assert result == ([], ["stowaway"])
    with pytest.raises(RuntimeError, match="stowaway"):
        windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder)


@pytest.mark.parametrize("strict", [True, False])
def test_size_mismatch_is_an_error(tmp_path: Path, *, strict: bool) -> None:
    write_bin(tmp_path / "pytorch_model.bin", {**STATE, "bias": torch.ones(3)})
    assert "bias" in _refused(nn.Linear(2, 2), tmp_path, IncompatibleKeys, strict=strict)


def test_missing_and_unexpected_names_are_reported(tmp_path: Path) -> None:
    write_bin(tmp_path / "pytorch_model.bin", {"new": torch.ones(1), "bias": torch.ones(2)})
    result = windlass.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path, strict=False)
    assert result == (["weight"], ["new"])


def test_assign_takes_the_tensors_of_a_pickle(tmp_path: Path) -> None:
    write_bin(tmp_path / "pytorch_model.bin", STATE)
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    windlass.load_sharded_checkpoint(model, tmp_path, assign=True)
    assert torch.equal(model.weight, STATE["weight"])


@pytest.mark.parametrize("value", [7, torch.eye(3, 5).to_sparse()])
@pytest.mark.parametrize("strict", [True, False])
def test_entry_that_is_no_plain_tensor_is_refused_by_name(
    tmp_path: Path, value: object, *, strict: bool
) -> None:
    model = torch.nn.Linear(5, 3)
    torch.save({"weight": value, "bias": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    before = fingerprint(model)
    with pytest.raises(InvalidPickle, match=r"`weight`: expected a .*tensor"):
        windlass.load_sharded_checkpoint(model, tmp_path, strict=strict)
    assert fingerprint(model) == before
