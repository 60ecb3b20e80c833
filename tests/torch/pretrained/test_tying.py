"""Weights that are one: by configuration, by declaration, by hooks, in the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from builders.pretrained import MODELS, new_model, saved, state_of, write_folder
from torch import nn
from windlass import PreTrainedModel
from windlass.torch.pretrained.tying import declared_ties, tie_declared

if TYPE_CHECKING:
    from pathlib import Path

Tokens = MODELS.TinyForTokens


def test_output_embeddings_are_input_embeddings() -> None:
    model = new_model("TinyForTokens")
    assert model.lm_head.weight is model.tiny.embed.weight


def test_they_are_not_where_the_config_says_so() -> None:
    model = new_model("TinyForTokens", tie_word_embeddings=False)
    assert model.lm_head.weight is not model.tiny.embed.weight


def test_torchscript_gets_a_copy() -> None:
    model = new_model("TinyForTokens", torchscript=True)
    assert model.lm_head.weight is not model.tiny.embed.weight
    assert model.lm_head.weight.shape == model.tiny.embed.weight.shape


@pytest.mark.parametrize("rows", [9, 14])
def test_output_bias_follows_the_vocabulary(rows: int) -> None:
    model = new_model("TinyForTokens", head_bias=True)
    before = model.lm_head.bias.clone()
    model._tie_or_clone_weights(model.lm_head, nn.Embedding(rows, 6))
    assert model.lm_head.bias.shape == (rows,)
    assert torch.equal(model.lm_head.bias[:9], before[:9])
    assert model.lm_head.out_features == rows


def test_tied_weight_missing_under_one_name_is_not_missing(tmp_path: Path) -> None:
    state = dict(new_model("TinyForTokens").state_dict())
    del state["tiny.embed.weight"]
    write_folder(tmp_path, state)
    model, info = Tokens.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == []
    assert torch.equal(model.tiny.embed.weight, state["lm_head.weight"])


def test_two_values_for_a_tied_weight_load_the_models_own_and_warn(tmp_path: Path) -> None:
    state = state_of(new_model("TinyForTokens"))
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    write_folder(tmp_path, state)
    with pytest.warns(UserWarning, match=r"lm_head\.weight.*tiny\.embed\.weight"):
        model = Tokens.from_pretrained(tmp_path)
    assert torch.equal(model.lm_head.weight, state["tiny.embed.weight"])


def test_equal_values_for_a_tied_weight_are_silent(tmp_path: Path) -> None:
    write_folder(tmp_path, state_of(new_model("TinyForTokens")))
    Tokens.from_pretrained(tmp_path)


def test_untied_model_loads_both_values(tmp_path: Path) -> None:
    state = state_of(new_model("TinyForTokens"))
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    write_folder(tmp_path, state)
    model = Tokens.from_pretrained(tmp_path, tie_word_embeddings=False)
    assert torch.equal(model.lm_head.weight, state["lm_head.weight"])
    assert torch.equal(model.tiny.embed.weight, state["tiny.embed.weight"])


class Pair(nn.Module):
    """Two lists of layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleList(nn.Linear(2, 2) for _ in range(11))
        self.b = nn.ModuleList(nn.Linear(2, 2) for _ in range(11))
        self.head = nn.Linear(2, 2)


def test_declared_names_are_tied() -> None:
    module = Pair()
    tie_declared(module, {"head.weight": "a.0.weight"})
    assert module.head.weight is module.a[0].weight


def test_declared_patterns_are_tied_in_order_of_numbers() -> None:
    module = Pair()
    tie_declared(module, {r"b\.\d+\.weight": r"a\.\d+\.weight"})
    assert all(one.weight is two.weight for one, two in zip(module.a, module.b, strict=True))
    assert module.a[0].bias is not module.b[0].bias


def test_declared_source_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.weight"):
        tie_declared(Pair(), {"head.weight": "nowhere.weight"})


def test_declared_target_that_a_model_lacks_is_passed_over() -> None:
    tie_declared(Pair(), {"tail.weight": "a.0.weight"})


def test_class_declares_ties_as_a_dict(tmp_path: Path) -> None:
    class Twins(MODELS.TinyModel):
        _tied_weights_keys: ClassVar = {r"layers\.1\.dense\.weight": r"layers\.0\.dense\.weight"}

    model = Twins(MODELS.TinyConfig())
    assert model.layers[1].dense.weight is model.layers[0].dense.weight
    model.save_pretrained(tmp_path)
    again, info = Twins.from_pretrained(tmp_path, output_loading_info=True)
    assert again.layers[1].dense.weight is again.layers[0].dense.weight
    assert not any(info.values())


def test_modules_tie_what_they_want(tmp_path: Path) -> None:
    class Own(MODELS.TinyModel):
        _tied_weights_keys: ClassVar = ["layers.1.dense.bias"]

        def _tie_weights(self) -> None:
            self.layers[1].dense.bias = self.layers[0].dense.bias

    model = Own(MODELS.TinyConfig())
    model.save_pretrained(tmp_path)
    again = Own.from_pretrained(tmp_path)
    assert again.layers[1].dense.bias is again.layers[0].dense.bias


def test_declared_ties_of_all_modules_are_found_under_their_names() -> None:
    outer = nn.Module()
    outer.inner = new_model("TinyForTokens")
    assert declared_ties(outer) == ["inner.lm_head.weight"]


class Layer(nn.Module):
    """A layer of an encoder, or of a decoder with cross-attention."""

    def __init__(self, *, crosses: bool) -> None:
        super().__init__()
        kinds = [nn.Linear(2, 2), *([nn.LayerNorm(2)] if crosses else []), nn.Linear(2, 2)]
        self.parts = nn.ModuleList(kinds)


class Halves(PreTrainedModel):
    """An encoder and a decoder."""

    config_class = MODELS.TinyConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder = nn.ModuleList([Layer(crosses=False)])
        self.decoder = nn.ModuleList([Layer(crosses=True)])
        self.post_init()


def test_encoder_gets_the_weights_of_the_decoder() -> None:
    config = MODELS.TinyConfig(is_encoder_decoder=True, tie_encoder_decoder=True)
    model = Halves(config)
    one, two = model.encoder[0].parts, model.decoder[0].parts
    assert one[0].weight is two[0].weight
    assert one[1].weight is two[2].weight
    assert model._dynamic_tied_weights_keys == [
        "encoder.0.parts.0.weight",
        "encoder.0.parts.0.bias",
        "encoder.0.parts.1.weight",
        "encoder.0.parts.1.bias",
    ]


def test_tied_halves_are_saved_once_and_tied_again(tmp_path: Path) -> None:
    model = Halves(MODELS.TinyConfig(is_encoder_decoder=True, tie_encoder_decoder=True))
    model.save_pretrained(tmp_path)
    again, info = Halves.from_pretrained(tmp_path, output_loading_info=True)
    assert again.encoder[0].parts[1].weight is again.decoder[0].parts[2].weight
    assert not any(info.values())


def test_halves_of_different_build_are_refused() -> None:
    decoder, encoder = nn.Module(), nn.Module()
    decoder.dense, encoder.dense = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    del encoder.dense.bias
    with pytest.raises(ValueError, match="bias"):
        Halves._tie_encoder_decoder_weights(encoder, decoder, "model", "encoder")


def test_encoder_modules_without_a_counterpart_are_told(caplog: pytest.LogCaptureFixture) -> None:
    decoder, encoder = nn.Module(), nn.Module()
    decoder.dense, encoder.dense, encoder.more = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    assert Halves._tie_encoder_decoder_weights(encoder, decoder, "model", "encoder") == [
        "encoder.dense.weight",
        "encoder.dense.bias",
    ]
    assert "model.more" in caplog.text


def test_base_checkpoint_ties_the_head(tmp_path: Path) -> None:
    base = saved(tmp_path, "TinyModel")
    model, info = Tokens.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(model.lm_head.weight, base.embed.weight)
    assert info["missing_keys"] == []
