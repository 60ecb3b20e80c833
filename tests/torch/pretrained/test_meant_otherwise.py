"""Where loading is meant to differ from transformers 4.46.3: the rows of `docs/differences.md`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
from builders.pretrained import MODELS, assert_same_state, new_model, saved, state_of, write_folder
from builders.sharded import deal, write_shards

if TYPE_CHECKING:
    from pathlib import Path

Model, Labels = MODELS.TinyModel, MODELS.TinyForLabels


def test_every_weight_has_the_dtype_of_the_model(tmp_path: Path) -> None:
    state = state_of(new_model("TinyModel"))
    state["layers.0.dense.bias"] = state["layers.0.dense.bias"].half()
    model = Model.from_pretrained(write_folder(tmp_path, state))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_loaded_weights_do_not_change_with_the_file(tmp_path: Path) -> None:
    saved(tmp_path, "TinyModel")
    model = Model.from_pretrained(tmp_path)
    before = state_of(model)
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(bytes(200))
    assert_same_state(state_of(model), before)


def test_only_modules_that_lack_a_weight_are_initialised(tmp_path: Path) -> None:
    seen: list[str] = []

    class Counting(Labels):
        def _init_weights(self, module: torch.nn.Module) -> None:
            seen.append(type(module).__name__)
            super()._init_weights(module)

    saved(tmp_path)
    Counting.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert seen == ["Linear", "Counting"]


def test_scalar_of_one_element_is_loaded(tmp_path: Path) -> None:
    class Scaled(Model):
        def __init__(self, config: object) -> None:
            super().__init__(config)
            self.scale = torch.nn.Parameter(torch.tensor(1.0))
            self.post_init()

    state = {**state_of(new_model("TinyModel")), "scale": torch.tensor([7.0])}
    write_folder(tmp_path, state)
    model = Scaled.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert model.scale.item() == 7.0


def test_old_spelling_of_another_shape_is_ignored_too(tmp_path: Path) -> None:
    state = state_of(new_model("TinyModel"))
    state["layers.0.LayerNorm.gamma"] = state.pop("layers.0.LayerNorm.weight")[:3]
    write_folder(tmp_path, state)
    _, info = Model.from_pretrained(
        tmp_path, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert info["mismatched_keys"] == [
        ("layers.0.LayerNorm.gamma", torch.Size([3]), torch.Size([6]))
    ]


def test_given_state_dict_needs_no_weights(tmp_path: Path) -> None:
    model = new_model("TinyModel")
    model.config.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path, state_dict=model.state_dict())
    assert_same_state(again.state_dict(), model.state_dict())


def test_tensor_that_the_index_does_not_list_is_not_loaded(tmp_path: Path) -> None:
    state = state_of(new_model("TinyModel"))
    write_shards(tmp_path, deal(state, [0, 1]), gain=None)
    MODELS.TinyConfig().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="gain"):
        model, info = Model.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == ["gain"]
    assert model.gain.tolist() == [0.5] * 6


def test_index_of_a_variant_has_two_names(tmp_path: Path) -> None:
    model = new_model("TinyModel")
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size=300)
    index = tmp_path / "model.safetensors.index.fp16.json"
    index.rename(tmp_path / "model.fp16.safetensors.index.json")
    again = Model.from_pretrained(tmp_path, variant="fp16")
    assert_same_state(again.state_dict(), model.state_dict())
