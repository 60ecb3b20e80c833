"""`load_sharded_checkpoint` fills a model exactly as torch's `load_state_dict` does."""

from __future__ import annotations

import inspect
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import windlass
from builders.bits import contents, fingerprint, model_tensors, random_tensor, same_bits
from builders.models import (
    CheckpointPlan,
    ModelPlan,
    build_model,
    checkpoint_plans,
    checkpoint_tensors,
    model_plans,
)
from builders.oracle import load_446, load_merged, missing_names
from builders.sharded import write_dealt, write_model, write_shards
from hypothesis import given
from windlass.errors import IncompatibleKeys


def _write(folder: str, model: ModelPlan, plan: CheckpointPlan) -> Path:
    tensors = checkpoint_tensors(model, plan)
    return write_dealt(Path(folder, "checkpoint"), tensors, plan.places)


def _quietly(load: Any, *args: Any, **options: Any) -> Any:
    """Call without warnings: that ties differ is told, and tested, elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(*args, **options)


@given(model_plans(), checkpoint_plans())
def test_random_model_is_filled_like_load_state_dict_of_the_merged_dict(
    plan: ModelPlan, checkpoint: CheckpointPlan
) -> None:
    ours, reference = build_model(plan), build_model(plan)
    with tempfile.TemporaryDirectory() as folder:
        path = _write(folder, plan, checkpoint)
        _quietly(windlass.load_sharded_checkpoint, ours, path, strict=False)
        _quietly(load_merged, reference, path, strict=False)
    assert contents(ours) == contents(reference)


@given(model_plans(), checkpoint_plans())
def test_random_model_with_agreeing_ties_is_filled_like_the_446_rule(
    plan: ModelPlan, checkpoint: CheckpointPlan
) -> None:
    # Where ties differ, the 4.46 rule lets an arbitrary shard win.
    checkpoint = replace(checkpoint, ties_differ=False, file_dtypes=())
    ours, reference = build_model(plan), build_model(plan)
    with tempfile.TemporaryDirectory() as folder:
        path = _write(folder, plan, checkpoint)
        windlass.load_sharded_checkpoint(ours, path, strict=False)
        load_446(reference, path, strict=False)
    assert contents(ours) == contents(reference)


@given(model_plans(), checkpoint_plans())
def test_random_model_reports_keys_like_the_446_rule_but_for_ties(
    plan: ModelPlan, checkpoint: CheckpointPlan
) -> None:
    """A name whose memory other names fill is not missing to us; 4.46 knows no ties."""
    model = build_model(plan)
    state, tensors = model.state_dict(), checkpoint_tensors(plan, checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path = _write(folder, plan, checkpoint)
        result = _quietly(windlass.load_sharded_checkpoint, model, path, strict=False)
    assert result.missing_keys == missing_names(state, tensors)
    assert result.unexpected_keys == [name for name in tensors if name not in state]


@given(model_plans(), checkpoint_plans())
def test_strict_load_of_a_random_model_is_whole_or_nothing(
    plan: ModelPlan, checkpoint: CheckpointPlan
) -> None:
    model, reference = build_model(plan), build_model(plan)
    state, tensors = model.state_dict(), checkpoint_tensors(plan, checkpoint)
    before = fingerprint(model)
    with tempfile.TemporaryDirectory() as folder:
        path = _write(folder, plan, checkpoint)
        if missing_names(state, tensors) or tensors.keys() - state.keys():
            with pytest.raises(IncompatibleKeys):
                windlass.load_sharded_checkpoint(model, path)
            assert fingerprint(model) == before
            return
        _quietly(windlass.load_sharded_checkpoint, model, path)
        _quietly(load_merged, reference, path, strict=False)
    assert contents(model) == contents(reference)


@given(model_plans(), checkpoint_plans())
def test_random_model_keeps_its_objects_and_memory(
    plan: ModelPlan, checkpoint: CheckpointPlan
) -> None:
    model = build_model(plan)
    before = [
        (name, id(t), t.data_ptr(), t.stride(), t.grad_fn) for name, t in model_tensors(model)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = _write(folder, plan, checkpoint)
        _quietly(windlass.load_sharded_checkpoint, model, path, strict=False)
    after = [(name, id(t), t.data_ptr(), t.stride(), t.grad_fn) for name, t in model_tensors(model)]
    assert after == before


@given(model_plans(), checkpoint_plans())
def test_random_model_bumps_version_counters_where_copy_does(
    plan: ModelPlan, checkpoint: CheckpointPlan
) -> None:
    ours, reference = build_model(plan), build_model(plan)
    before = {name: tensor._version for name, tensor in model_tensors(ours)}
    with tempfile.TemporaryDirectory() as folder:
        path = _write(folder, plan, checkpoint)
        _quietly(windlass.load_sharded_checkpoint, ours, path, strict=False)
        _quietly(load_merged, reference, path, strict=False)
    assert _bumped(ours, before) == _bumped(reference, before)


def _bumped(model: torch.nn.Module, before: dict[str, int]) -> set[str]:
    return {name for name, tensor in model_tensors(model) if tensor._version > before[name]}


@pytest.mark.parametrize("io", ["auto", "mapped", "buffered", "direct", "uring"])
@pytest.mark.parametrize("cache", ["keep", "drop"])
@pytest.mark.parametrize("threads", [None, 1, 9])
@pytest.mark.parametrize("memory", ["mapped", "owned"])
def test_reader_options_do_not_change_the_result(
    pair: tuple[torch.nn.Module, Path], io: Any, cache: Any, threads: int | None, memory: Any
) -> None:
    model, folder = pair
    windlass.load_sharded_checkpoint(
        model, folder, io=io, cache=cache, threads=threads, memory=memory
    )
    expected = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    load_merged(expected, folder)
    assert contents(model) == contents(expected)


@pytest.mark.parametrize("option", [{"io": "tape"}, {"memory": "borrowed"}, {"cache": "ask"}])
def test_unknown_option_value_is_a_value_error(
    pair: tuple[torch.nn.Module, Path], option: Any
) -> None:
    model, folder = pair
    before = fingerprint(model)
    with pytest.raises(ValueError, match=r"tape|borrowed|ask"):
        windlass.load_sharded_checkpoint(model, folder, **option)
    assert fingerprint(model) == before


def test_signature_begins_with_that_of_446() -> None:
    parameters = inspect.signature(windlass.load_sharded_checkpoint).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == ["model", "folder", "strict", "prefer_safe"]
    assert [p.default for p in positional[2:]] == [True, True]
    assert {p.kind for p in parameters} == {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }


@pytest.mark.parametrize("strict", [True, False])
def test_result_is_torchs_own_tuple(pair: tuple[torch.nn.Module, Path], strict: bool) -> None:  # noqa: FBT001
    model, folder = pair
    result = windlass.load_sharded_checkpoint(model, folder, strict)
    assert type(result) is torch.nn.modules.module._IncompatibleKeys
    assert result == ([], [])


def test_every_bit_pattern_survives(tmp_path: Path) -> None:
    model = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
    state = {
        "weight": torch.arange(64 * 64, dtype=torch.int16)
        .mul(16)
        .view(torch.bfloat16)
        .view(64, 64),
        "bias": random_tensor((64,), torch.bfloat16, 1),
    }
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert all(same_bits(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_tensors_larger_than_a_read_chunk_arrive_whole(tmp_path: Path) -> None:
    state = {f"{n}.weight": random_tensor((1536, 1024), torch.float32, n) for n in range(4)}
    layers = [torch.nn.Linear(1024, 1536, bias=False) for _ in range(3)]
    wide = torch.nn.Linear(1536, 1024, bias=False)
    wide.weight = torch.nn.Parameter(torch.zeros(1024, 1536).t())
    model = torch.nn.Sequential(*layers, wide)
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state), threads=4)
    assert all(same_bits(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_empty_model_takes_an_empty_checkpoint(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "c", {})
    assert windlass.load_sharded_checkpoint(torch.nn.Identity(), folder) == ([], [])


def test_loading_twice_gives_the_same_model(pair: tuple[torch.nn.Module, Path]) -> None:
    model, folder = pair
    windlass.load_sharded_checkpoint(model, folder)
    once = contents(model)
    windlass.load_sharded_checkpoint(model, folder)
    assert contents(model) == once


def test_model_does_not_depend_on_the_files_afterwards(
    pair: tuple[torch.nn.Module, Path],
) -> None:
    model, folder = pair
    windlass.load_sharded_checkpoint(model, folder)
    loaded = contents(model)
    for shard in folder.glob("*.safetensors"):
        shard.write_bytes(bytes(shard.stat().st_size))
    assert contents(model) == loaded
