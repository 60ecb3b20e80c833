"""Models of transformers saved by windlass and loaded by transformers, and the other way round."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import torch
import windlass
from builders.bits import contents
from builders.saves import folder_bytes, holds, load_folder, metadata_of
from builders.sharded import SAFE_INDEX

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = ("8KB", "5GB")


@pytest.fixture(scope="module")
def transformers() -> Any:
    """Import transformers, whose own warnings are not this test's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        return transformers


def _gpt2(transformers: Any, seed: int) -> Any:
    """Return a model whose embedding is its head."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=8)
    return transformers.GPT2LMHeadModel(config)


def _patterns(model: Any) -> list[str]:
    return list(model._tied_weights_keys)


def _save_ours(model: Any, folder: Path, size: str, **options: Any) -> None:
    model.config.save_pretrained(folder)
    options = {"keep": "transformers", "shared_tensors_to_discard": _patterns(model), **options}
    windlass.save_torch_model(model, folder, max_shard_size=size, **options)


@pytest.mark.parametrize("size", SIZES)
def test_transformers_loads_what_was_saved(tmp_path: Path, transformers: Any, size: str) -> None:
    source = _gpt2(transformers, 1)
    _save_ours(source, tmp_path, size)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert contents(loaded) == contents(source)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


@pytest.mark.parametrize("size", SIZES)
def test_tensors_are_those_that_transformers_saves(
    tmp_path: Path, transformers: Any, size: str
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    _save_ours(_gpt2(transformers, 1), ours, size)
    _gpt2(transformers, 1).save_pretrained(theirs, max_shard_size=size)
    assert holds(load_folder(ours), load_folder(theirs))


def test_shards_and_index_are_those_of_transformers(tmp_path: Path, transformers: Any) -> None:
    """Byte by byte; the index tells of the tie besides."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    _save_ours(_gpt2(transformers, 1), ours, "8KB")
    _gpt2(transformers, 1).save_pretrained(theirs, max_shard_size="8KB")
    one, two = (
        {name: data for name, data in folder_bytes(folder).items() if name.startswith("model")}
        for folder in (ours, theirs)
    )
    index = json.loads(one.pop(SAFE_INDEX))
    assert index["metadata"].pop("lm_head.weight") == "transformer.wte.weight"
    assert index == json.loads(two.pop(SAFE_INDEX))
    assert one == two


@pytest.mark.parametrize("size", SIZES)
def test_what_transformers_saved_is_loaded(tmp_path: Path, transformers: Any, size: str) -> None:
    source, model = _gpt2(transformers, 1), _gpt2(transformers, 2)
    source.save_pretrained(tmp_path, max_shard_size=size)
    windlass.load_torch_model(model, tmp_path, strict=True)
    assert contents(model) == contents(source)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("then", SIZES)
def test_variant_of_transformers_is_loaded_and_replaced(
    tmp_path: Path, transformers: Any, size: str, then: str
) -> None:
    """Its index has a name that the hub does not know."""
    source, model = _gpt2(transformers, 1), _gpt2(transformers, 2)
    pattern = "model.fp16{suffix}.safetensors"
    source.save_pretrained(tmp_path, max_shard_size=size, variant="fp16")
    assert (tmp_path / "model.safetensors.index.fp16.json").exists() == (size == "8KB")
    windlass.load_torch_model(model, tmp_path, strict=True, filename_pattern=pattern)
    assert contents(model) == contents(source)
    newer = _gpt2(transformers, 3)
    windlass.save_torch_model(newer, tmp_path, max_shard_size=then, filename_pattern=pattern)
    assert not (tmp_path / "model.safetensors.index.fp16.json").exists()
    windlass.load_torch_model(model, tmp_path, strict=True, filename_pattern=pattern)
    assert contents(model) == contents(newer)


@pytest.mark.parametrize("size", SIZES)
def test_hub_and_windlass_load_each_other(tmp_path: Path, transformers: Any, size: str) -> None:
    source = _gpt2(transformers, 1)
    saves = (windlass.save_torch_model, huggingface_hub.save_torch_model)
    for number, save in enumerate(saves):
        folder = tmp_path / str(number)
        folder.mkdir()
        save(source, folder, max_shard_size=size, shared_tensors_to_discard=_patterns(source))
        for load in (windlass.load_torch_model, huggingface_hub.load_torch_model):
            model = _gpt2(transformers, 2)
            load(model, folder)
            assert contents(model) == contents(source)
    assert folder_bytes(tmp_path / "0").keys() == folder_bytes(tmp_path / "1").keys()


def test_name_that_transformers_keeps_is_the_undeclared_one(
    tmp_path: Path, transformers: Any
) -> None:
    _save_ours(_gpt2(transformers, 1), tmp_path, "5GB")
    stored = load_folder(tmp_path)
    assert "transformer.wte.weight" in stored
    assert "lm_head.weight" not in stored
    assert metadata_of(tmp_path / "model.safetensors")["lm_head.weight"] == "transformer.wte.weight"


def test_folder_of_transformers_keeps_its_other_files(tmp_path: Path, transformers: Any) -> None:
    """Where shards follow a single file, transformers 5 would go on loading the old one."""
    _gpt2(transformers, 1).save_pretrained(tmp_path)
    before = folder_bytes(tmp_path)
    source = _gpt2(transformers, 2)
    windlass.save_torch_model(source, tmp_path, max_shard_size="8KB")
    after = folder_bytes(tmp_path)
    others = {name for name in before if not name.startswith("model")}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert contents(loaded) == contents(source)


def test_saved_in_the_background_is_loaded_by_transformers(
    tmp_path: Path, transformers: Any
) -> None:
    source = _gpt2(transformers, 1)
    source.config.save_pretrained(tmp_path)
    handle = windlass.save_async(
        source.state_dict(),
        tmp_path,
        keep="transformers",
        max_shard_size="8KB",
        shared_tensors_to_discard=_patterns(source),
    )
    wanted = contents(source)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.zero_()
    handle.result()
    assert contents(transformers.GPT2LMHeadModel.from_pretrained(tmp_path)) == wanted


def test_half_precision_copy_is_loaded_by_transformers(tmp_path: Path, transformers: Any) -> None:
    source = _gpt2(transformers, 1)
    _save_ours(source, tmp_path, "5GB", dtype=torch.bfloat16)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert contents(loaded) == contents(source.to(torch.bfloat16))
