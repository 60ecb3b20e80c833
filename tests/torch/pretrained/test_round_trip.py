"""What `save_pretrained` writes, `from_pretrained` loads: every bit, in every form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.pretrained import KINDS, MODELS, assert_same_state, new_model, saved

if TYPE_CHECKING:
    from pathlib import Path

FORMS: dict[str, dict[str, Any]] = {
    "single": {},
    "sharded": {"max_shard_size": 300},
    "pickle": {"safe_serialization": False},
    "sharded pickle": {"safe_serialization": False, "max_shard_size": 300},
}


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_is_loaded(
    tmp_path: Path, kind: str, form: str, variant: str | None
) -> None:
    model = new_model(kind)
    model.save_pretrained(tmp_path, variant=variant, **FORMS[form])
    again, info = type(model).from_pretrained(tmp_path, variant=variant, output_loading_info=True)
    assert_same_state(again.state_dict(), model.state_dict())
    assert not any(info.values())


def test_config_and_architecture_are_saved(tmp_path: Path) -> None:
    saved(tmp_path, hidden_size=4)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["TinyForLabels"]
    assert config["torch_dtype"] == "float32"
    assert config["hidden_size"] == 4


def test_saving_changes_neither_config_nor_state_dict(tmp_path: Path) -> None:
    model = new_model("TinyForTokens")
    before, state = model.config.to_dict(), model.state_dict()
    names = list(state)
    model.save_pretrained(tmp_path, state_dict=state)
    assert model.config.to_dict() == before
    assert list(state) == names


def test_loaded_model_evaluates(tmp_path: Path) -> None:
    model = saved(tmp_path)
    again = MODELS.TinyForLabels.from_pretrained(tmp_path)
    assert not any(module.training for module in again.modules())
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(again(tokens), model(tokens))


def test_loaded_parameters_train_as_new_ones_do(tmp_path: Path) -> None:
    saved(tmp_path)
    again = MODELS.TinyForLabels.from_pretrained(tmp_path).train()
    again(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.is_leaf and p.requires_grad and p.grad is not None for p in again.parameters())


def test_base_model_loads_from_a_model_with_a_head(tmp_path: Path) -> None:
    model = saved(tmp_path, "TinyForLabels")
    again, info = MODELS.TinyModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_same_state(again.state_dict(), model.tiny.state_dict())
    assert info["unexpected_keys"] == ["classifier.bias", "classifier.weight"]


def test_model_with_a_head_loads_from_its_base(tmp_path: Path) -> None:
    model = saved(tmp_path, "TinyModel")
    again, info = MODELS.TinyForLabels.from_pretrained(tmp_path, output_loading_info=True)
    assert_same_state(again.tiny.state_dict(), model.state_dict())
    assert info["missing_keys"] == ["classifier.bias", "classifier.weight"]


def test_tied_weight_is_stored_once_and_tied_again(tmp_path: Path) -> None:
    import windlass

    saved(tmp_path, "TinyForTokens")
    assert "lm_head.weight" not in windlass.Checkpoint(tmp_path)
    again = MODELS.TinyForTokens.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.tiny.embed.weight
