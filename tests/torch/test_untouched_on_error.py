"""An error leaves the model bit-identical, wherever in the checkpoint or the model its cause is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import fingerprint, random_tensor
from builders.files import info, write_header
from builders.sharded import SAFE_INDEX, deal, write_model, write_shards
from torch import nn
from windlass.errors import (
    CheckpointError,
    GitLfsPointer,
    IncompatibleKeys,
    IndexMismatch,
    InvalidHeader,
    InvalidIndex,
    MetaParameter,
    NotARegularFile,
    ShardNotFound,
    TruncatedFile,
    UnsafeShardName,
    WindlassError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"
SHARDS = 4


def _model() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(SHARDS)])
    model.register_buffer("mean", torch.ones(3))
    model.register_buffer("cache", torch.ones(3), persistent=False)
    return model


def _state() -> dict[str, torch.Tensor]:
    tensors = _model().state_dict().items()
    return {name: random_tensor(tuple(t.shape), t.dtype, n) for n, (name, t) in enumerate(tensors)}


def _last_shard(folder: Path) -> Path:
    return max(folder.glob("*.safetensors"))


def _truncate(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-1])


def _cut_to_header(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:20])


def _relabel(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes().replace(b'"F32"', b'"F99"'))


def _make_folder(shard: Path) -> None:
    shard.unlink()
    shard.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    "missing": (lambda shard: shard.unlink(), ShardNotFound),
    "truncated": (_truncate, TruncatedFile),
    "cut inside its header": (_cut_to_header, InvalidHeader),
    "empty": (lambda shard: shard.write_bytes(b""), InvalidHeader),
    "an LFS pointer": (lambda shard: shard.write_bytes(LFS), GitLfsPointer),
    "of an unknown dtype": (_relabel, InvalidHeader),
    "longer than its header says": (lambda s: s.write_bytes(s.read_bytes() + b"0"), InvalidHeader),
    "a folder": (_make_folder, NotARegularFile),
    "another file": (
        lambda shard: write_header(shard, {"else": info("U8", [1], 0, 1)}, b"0"),
        IndexMismatch,
    ),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_shard_that_is(tmp_path: Path, damage: str, *, strict: bool) -> None:
    spoil, error = DAMAGES[damage]
    folder = write_model(tmp_path / "c", _state(), count=SHARDS)
    shard = _last_shard(folder)
    spoil(shard)
    model = _model()
    before = fingerprint(model)
    with pytest.raises(error, match=shard.name) as caught:
        windlass.load_sharded_checkpoint(model, folder, strict=strict)
    assert isinstance(caught.value, CheckpointError)
    assert fingerprint(model) == before


STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Exception]]] = {
    "another shape": (
        lambda state: state.update({"3.weight": torch.ones(8, 9)}),
        IncompatibleKeys,
    ),
    "a shape of as many elements": (
        lambda state: state.update({"mean": torch.ones(3, 1)}),
        IncompatibleKeys,
    ),
    "a dtype that cannot be cast": (
        lambda state: state.update(
            {"mean": torch.ones(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}
        ),
        RuntimeError,
    ),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("change", STATES)
def test_tensor_of(tmp_path: Path, change: str, *, strict: bool) -> None:
    alter, error = STATES[change]
    state = _state()
    alter(state)
    model = _model()
    before = fingerprint(model)
    with pytest.raises(error) as caught:
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state, SHARDS), strict)
    assert isinstance(caught.value, WindlassError)
    assert fingerprint(model) == before


def _index_garbage(folder: Path) -> None:
    (folder / SAFE_INDEX).write_text("{")


def _index_without_map(folder: Path) -> None:
    (folder / SAFE_INDEX).write_text('{"metadata": {}}')


def _index_unsafe(folder: Path) -> None:
    write_shards(folder, deal(_state(), range(SHARDS)), mean="../mean.safetensors")


def _index_ghost(folder: Path) -> None:
    shards = deal(_state(), range(SHARDS))
    shards[max(shards)].popitem()
    write_shards(folder, shards, **dict.fromkeys(_state(), max(shards)))


def _double(folder: Path) -> None:
    shards = deal(_state(), range(SHARDS))
    name, tensor = next(iter(shards[min(shards)].items()))
    shards[max(shards)][name] = tensor
    write_shards(folder, shards)


INDEXES: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    "not JSON": (_index_garbage, InvalidIndex),
    "without a weight map": (_index_without_map, InvalidIndex),
    "unsafe": (_index_unsafe, UnsafeShardName),
    "wrong about its shards": (_index_ghost, IndexMismatch),
    "of shards that repeat a name": (_double, IndexMismatch),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("fault", INDEXES)
def test_index_that_is(tmp_path: Path, fault: str, *, strict: bool) -> None:
    spoil, error = INDEXES[fault]
    folder = write_model(tmp_path / "c", _state(), count=SHARDS)
    spoil(folder)
    model = _model()
    before = fingerprint(model)
    with pytest.raises(error):
        windlass.load_sharded_checkpoint(model, folder, strict=strict)
    assert fingerprint(model) == before


@pytest.mark.parametrize("strict", [True, False])
def test_meta_parameter_says_what_to_do(tmp_path: Path, *, strict: bool) -> None:
    """Torch warns, copies nothing and reports success."""
    model = _model()
    model[3].to("meta")
    before = fingerprint(model)
    with pytest.raises(MetaParameter, match=r"(?s)3\.(weight|bias).*assign"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", _state()), strict)
    assert fingerprint(model) == before


@pytest.mark.parametrize("strict", [True, False])
def test_meta_buffer_says_what_to_do(tmp_path: Path, *, strict: bool) -> None:
    model = _model()
    model.mean = torch.ones(3, device="meta")
    before = fingerprint(model)
    with pytest.raises(MetaParameter, match=r"(?s)mean.*assign"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", _state()), strict)
    assert fingerprint(model) == before


class Raised(Exception):
    """What the hooks of these tests raise."""


def _raise(*_: Any) -> None:
    raise Raised


class Broken(nn.Linear):
    """Fills its weight and then fails, as a quantised layer on bad input."""

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state, prefix, *args)
        raise Raised


def _pre_hook(model: nn.Module) -> None:
    model[2].register_load_state_dict_pre_hook(_raise)


def _post_hook(model: nn.Module) -> None:
    model[2].register_load_state_dict_post_hook(_raise)


def _root_post_hook(model: nn.Module) -> None:
    model.register_load_state_dict_post_hook(_raise)


def _broken_layer(model: nn.Module) -> None:
    model[2] = Broken(8, 8)


def _hooks_all_over(model: nn.Module) -> None:
    for layer in (model[0], model[1], model[3]):
        layer.register_load_state_dict_pre_hook(lambda *_: None)
    model[2].register_load_state_dict_post_hook(_raise)


HOOKS = (_pre_hook, _post_hook, _root_post_hook, _broken_layer, _hooks_all_over)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("install", HOOKS, ids=lambda install: install.__name__.strip("_"))
def test_hook_that_raises_in_the_middle(
    tmp_path: Path, install: Callable[[nn.Module], None], *, strict: bool
) -> None:
    model = _model()
    install(model)
    before = fingerprint(model)
    with pytest.raises(Raised):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", _state()), strict)
    assert fingerprint(model) == before


@pytest.mark.parametrize("strict", [True, False])
def test_size_mismatch_inside_a_hooked_module(tmp_path: Path, *, strict: bool) -> None:
    model = _model()
    model[2].register_load_state_dict_pre_hook(lambda *_: None)
    before = fingerprint(model)
    state = {**_state(), "2.bias": torch.ones(9)}
    with pytest.raises(IncompatibleKeys, match=r"2\.bias"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state), strict)
    assert fingerprint(model) == before
