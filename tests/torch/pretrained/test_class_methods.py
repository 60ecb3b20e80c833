"""The rest of the class: building, initialising, resizing, gradients, moves, questions."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.pretrained import KINDS, MODELS, assert_same_state, new_model, saved
from torch import nn
from windlass import errors
from windlass.config import PretrainedConfig
from windlass.torch.initialisation import no_init_weights

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.client import Oracle

Labels, Tokens, Model = MODELS.TinyForLabels, MODELS.TinyForTokens, MODELS.TinyModel


def test_config_has_to_be_one() -> None:
    with pytest.raises(ValueError, match="PretrainedConfig"):
        Model({"hidden_size": 6})


@pytest.mark.parametrize("tied", [True, False])
def test_new_models_have_the_weights_of_446(oracle: Oracle, *, tied: bool) -> None:
    cases = [
        {"model": kind, "seed": 5, "config": {"tie_word_embeddings": tied, "head_bias": True}}
        for kind in KINDS
    ]
    for case, answer in zip(cases, oracle.ask("pretrained.build", cases), strict=True):
        torch.manual_seed(case["seed"])
        model = getattr(MODELS, case["model"])(MODELS.TinyConfig(**case["config"]))
        assert_same_state(dict(model.state_dict()), answer.value)


def test_modules_are_initialised_once() -> None:
    model = new_model()
    before = model.classifier.weight.clone()
    model.init_weights()
    assert torch.equal(model.classifier.weight, before)


def test_nothing_is_initialised_inside_no_init_weights() -> None:
    with no_init_weights():
        model = Model(MODELS.TinyConfig())
    assert not hasattr(model.embed, "_is_hf_initialized")


def test_base_model_is_the_body_or_the_model_itself() -> None:
    model = new_model()
    assert model.base_model is model.tiny
    assert model.tiny.base_model is model.tiny


def test_framework_and_dummy_inputs() -> None:
    model = new_model()
    assert model.framework == "pt"
    assert model(model.dummy_inputs["input_ids"]).shape == (3, 2)


def test_only_models_that_say_how_can_generate() -> None:
    class Speaker(Tokens):
        def generate(self) -> None: ...

    assert Speaker.can_generate()
    assert not Tokens.can_generate()
    assert Tokens(MODELS.TinyConfig()).generation_config is None


def test_from_config_takes_a_dtype_by_either_name() -> None:
    for names in ({"dtype": "float16"}, {"torch_dtype": "float16"}):
        given = {"dtype": None, "torch_dtype": None, **names}
        assert Labels._from_config(MODELS.TinyConfig(), **given).dtype == torch.float16


def test_from_config_builds_without_changing_the_config() -> None:
    config = MODELS.TinyConfig()
    before = config.to_dict()
    model = Labels._from_config(config, torch_dtype="bfloat16", attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert config.to_dict() == before
    assert torch.get_default_dtype() == torch.float32


def test_default_dtype_is_set_and_told() -> None:
    before = Labels._set_default_torch_dtype(torch.float16)
    try:
        assert (before, torch.get_default_dtype()) == (torch.float32, torch.float16)
    finally:
        torch.set_default_dtype(before)
    with pytest.raises(ValueError, match="int8"):
        Labels._set_default_torch_dtype(torch.int8)


def test_memory_footprint_counts_each_weight_once() -> None:
    model = new_model("TinyForTokens")
    parameters = 4 * sum(p.numel() for p in model.parameters())
    assert model.get_memory_footprint(return_buffers=False) == parameters
    assert model.get_memory_footprint() == parameters + 8 * (2 + 7)


@pytest.mark.parametrize("name", ["input", "output"])
def test_embeddings_are_asked_of_the_base_model(name: str) -> None:
    model = new_model("TinyForTokens")
    expected = model.tiny.embed if name == "input" else model.lm_head
    assert getattr(model, f"get_{name}_embeddings")() is expected
    new = nn.Embedding(3, 6) if name == "input" else nn.Linear(6, 3)
    getattr(model, f"set_{name}_embeddings")(new)
    assert getattr(model, f"get_{name}_embeddings")() is new


def test_base_model_that_does_not_say_is_told_what_to_override() -> None:
    class Bare(Model):
        get_input_embeddings = MODELS.TinyForTokens.get_input_embeddings
        set_input_embeddings = MODELS.TinyForTokens.set_input_embeddings

    model = Bare(MODELS.TinyConfig(), None)
    model.base_model_prefix = ""
    calls: dict[str, tuple[Any, ...]] = {
        "get_input_embeddings": (),
        "set_input_embeddings": (None,),
        "set_output_embeddings": (None,),
        "resize_position_embeddings": (5,),
        "get_position_embeddings": (),
    }
    for method, arguments in calls.items():
        with pytest.raises(NotImplementedError, match=method):
            getattr(model, method)(*arguments)
    assert model.get_output_embeddings() is None


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("wanted", "multiple", "size"), [(14, None, 14), (8, None, 8), (None, 4, 12)]
)
def test_vocabulary_is_resized(
    tmp_path: Path, *, tied: bool, wanted: int | None, multiple: int | None, size: int
) -> None:
    model = new_model("TinyForTokens", tie_word_embeddings=tied, head_bias=True)
    old = model.tiny.embed.weight.clone()
    embeddings = model.resize_token_embeddings(wanted, pad_to_multiple_of=multiple)
    assert embeddings is model.tiny.embed
    assert embeddings.weight.shape == model.lm_head.weight.shape == (size, 6)
    assert model.lm_head.bias.shape == (size,)
    assert model.config.vocab_size == model.vocab_size == size
    assert (model.lm_head.weight is embeddings.weight) == tied
    kept = min(size, 11)
    assert torch.equal(embeddings.weight[:kept], old[:kept])
    model.save_pretrained(tmp_path)
    again = Tokens.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), model.state_dict())


def test_vocabulary_of_no_new_size_stays() -> None:
    model = new_model("TinyForTokens")
    weight = model.tiny.embed.weight
    assert model.resize_token_embeddings() is model.tiny.embed
    assert model.tiny.embed.weight is weight


def test_new_rows_are_initialised_where_the_mean_is_not_wanted() -> None:
    model = new_model("TinyForTokens", initializer_range=0.0)
    model.resize_token_embeddings(13, mean_resizing=False)
    assert torch.equal(model.tiny.embed.weight[11:], torch.zeros(2, 6))
    model.resize_token_embeddings(14, mean_resizing=True)
    assert model.tiny.embed.weight[13].abs().sum() > 0


def test_frozen_embeddings_stay_frozen() -> None:
    model = new_model("TinyForTokens", tie_word_embeddings=False)
    model.tiny.embed.weight.requires_grad_(requires_grad=False)
    model.resize_token_embeddings(13)
    assert not model.tiny.embed.weight.requires_grad
    assert model.lm_head.weight.requires_grad


def test_transposed_output_layer_is_resized() -> None:
    model = new_model("TinyForTokens")
    head = nn.Linear(11, 6, bias=False)
    assert model._get_resized_lm_head(head, 13, transposed=True).weight.shape == (6, 13)


class Headed(Model):
    """Remembers which heads were pruned."""

    def _prune_heads(self, heads: dict[int, list[int]]) -> None:
        self.pruned = heads


def test_pruned_heads_are_pruned_and_remembered() -> None:
    model = Headed(MODELS.TinyConfig())
    model.prune_heads({1: [0, 2]})
    assert model.pruned == {1: [0, 2]}
    model.prune_heads({1: [3], 0: [1]})
    assert model.config.pruned_heads == {1: [0, 2, 3], 0: [1]}


def test_heads_that_the_config_has_pruned_are_pruned_at_the_start() -> None:
    assert Headed(MODELS.TinyConfig(pruned_heads={0: [1]})).pruned == {0: [1]}


def test_gradient_checkpointing_is_switched_on_and_off() -> None:
    model = new_model()
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.is_gradient_checkpointing
    assert model.tiny.layers[0]._gradient_checkpointing_func.keywords == {"use_reentrant": False}
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_checkpointing_without_arguments_is_reentrant() -> None:
    model = new_model()
    for options in (None, {}):
        model.gradient_checkpointing_enable(options)
        keywords = model.tiny.layers[0]._gradient_checkpointing_func.keywords
        assert keywords == {"use_reentrant": True}


def test_gradient_checkpointing_has_to_be_supported() -> None:
    kind = type("Not", (Labels,), {"supports_gradient_checkpointing": False})
    model = kind(MODELS.TinyConfig())
    model.gradient_checkpointing_disable()
    with pytest.raises(ValueError, match="supports_gradient_checkpointing"):
        model.gradient_checkpointing_enable()


def test_gradient_checkpointing_needs_a_module_that_can() -> None:
    model = Labels(MODELS.TinyConfig(num_layers=0))
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        model.gradient_checkpointing_enable()


def test_old_form_of_the_checkpointing_setter_works_with_a_warning() -> None:
    class Old(Labels):
        def _set_gradient_checkpointing(self, module: nn.Module, *, value: bool = False) -> None:
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = value

    model = Old(MODELS.TinyConfig())
    with pytest.warns(FutureWarning, match="_set_gradient_checkpointing"):
        model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    with pytest.warns(FutureWarning, match="_set_gradient_checkpointing"):
        model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_checkpointing_of_the_config_is_taken_once() -> None:
    with pytest.warns(UserWarning, match="gradient_checkpointing"):
        config = MODELS.TinyConfig(gradient_checkpointing=True)
    model = Labels(config)
    assert model.is_gradient_checkpointing
    assert not hasattr(model.config, "gradient_checkpointing")


def test_inputs_pass_a_gradient_on_while_embeddings_are_frozen() -> None:
    model = new_model()
    model.requires_grad_(requires_grad=False)
    tokens = torch.tensor([[1, 2]])
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert model(tokens).requires_grad
    model.disable_input_require_grads()
    assert not model(tokens).requires_grad


@pytest.mark.parametrize(
    ("method", "refuses"),
    [
        ("bitsandbytes", ("to", "cuda", "dtype")),
        ("hqq", ("to", "cuda", "dtype")),
        ("gptq", ("dtype",)),
    ],
)
def test_quantised_models_are_not_moved_or_cast(method: str, refuses: tuple[str, ...]) -> None:
    model = new_model()
    model.quantization_method = method
    moves = {
        "to": lambda: model.to("cpu"),
        "cuda": model.cuda,
        "dtype": lambda: model.to(torch.float16),
    }
    for name in refuses:
        with pytest.raises(ValueError, match=method):
            moves[name]()
    if "to" not in refuses:
        moves["to"]()
    model.is_quantized = True
    for cast in (model.half, model.float):
        with pytest.raises(ValueError, match="quantised"):
            cast()


def test_plain_models_are_moved_and_cast() -> None:
    model = new_model()
    assert model.to(torch.float16).dtype == torch.float16
    assert model.float().dtype == torch.float32
    assert model.half().dtype == torch.float16
    with pytest.raises(ValueError, match="not quantised"):
        model.dequantize()


@pytest.mark.parametrize(
    "method",
    [
        "to_bettertransformer",
        "reverse_bettertransformer",
        "active_adapters",
        "load_adapter",
        "add_adapter",
        "set_adapter",
        "enable_adapters",
        "disable_adapters",
        "active_adapter",
        "get_adapter_state_dict",
    ],
)
def test_method_that_is_not_there_yet_says_so(method: str) -> None:
    with pytest.raises(errors.NotSupported, match=method):
        getattr(new_model(), method)()
    assert not new_model()._hf_peft_config_loaded  # What peft and trainers ask first.


def test_tags_are_added_once_and_to_the_model_alone() -> None:
    model = new_model()
    model.add_model_tags("one")
    model.add_model_tags(["two", "one"])
    assert model.model_tags == ["one", "two"]
    assert Labels.model_tags is None


def test_modules_are_found_by_names_of_weights() -> None:
    model = new_model()
    names = ["tiny.layers.0.dense.weight", "classifier.bias"]
    found = model.retrieve_modules_from_names(names)
    assert found == [model.tiny.layers[0].dense, model.classifier]
    found = model.retrieve_modules_from_names(["layers.0.dense.weight"], remove_prefix=True)
    assert found == [model.tiny.layers[0].dense]
    found = model.retrieve_modules_from_names(["classifier.weight"], remove_prefix=True)
    assert found == [model.classifier]
    found = model.tiny.retrieve_modules_from_names(["tiny.layers.0.dense.bias"], add_prefix=True)
    assert found == [model.tiny.layers[0].dense]


def test_modules_that_stay_whole_are_listed() -> None:
    assert new_model()._get_no_split_modules("auto") == ["Block"]
    kind = type("Silent", (Labels,), {"_no_split_modules": None})
    with pytest.raises(ValueError, match="_no_split_modules"):
        kind(MODELS.TinyConfig())._get_no_split_modules("auto")


def test_padding_without_a_mask_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model = new_model(pad_token_id=0, eos_token_id=0)
    padded = torch.tensor([[1, 2, 0]])
    model.warn_if_padding_and_no_attention_mask(padded, torch.ones(1, 3))
    model.warn_if_padding_and_no_attention_mask(torch.tensor([[1, 2]]), None)
    assert caplog.text == ""
    for _ in range(2):
        model.warn_if_padding_and_no_attention_mask(padded, None)
    assert caplog.text.count("attention_mask") == 2
    assert len(caplog.records) == 1


def test_padding_is_not_asked_for_while_a_model_is_traced() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model(pad_token_id=0)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            self.model.warn_if_padding_and_no_attention_mask(input_ids, None)
            return input_ids + 1

    assert torch.fx.symbolic_trace(Asking())(torch.zeros(1, 2)).tolist() == [[1, 1]]


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_file_is_loaded_in_the_place_of_a_models_tensors(tmp_path: Path, form: str) -> None:
    model, other = new_model(), new_model(seed=1)
    other.save_pretrained(tmp_path, safe_serialization=form == "safetensors")
    (path,) = [file for file in tmp_path.iterdir() if file.suffix == f".{form}"]
    names = list(model.state_dict())
    assert model._load_pretrained_model_low_mem(model, names, path)[0] == []
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_embeddings_stay_where_the_output_layer_cannot_be_resized() -> None:
    model = new_model("TinyForTokens", tie_word_embeddings=False)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.zeros(11, 6)), None

    model.set_output_embeddings(Head())
    before = model.get_input_embeddings().weight.clone()
    with pytest.raises(errors.InvalidResize):
        model.resize_token_embeddings(25)
    assert torch.equal(model.get_input_embeddings().weight, before)
    model.resize_token_embeddings(11)


def test_notice_of_new_rows_around_the_mean_is_information(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "windlass"):
        new_model().resize_token_embeddings(20)
    assert {one.levelname for one in caplog.records if "mean" in one.getMessage()} == {"INFO"}


def test_code_of_a_registered_class_is_saved_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "body.py").write_text("SIZE = 3\n")
    (tmp_path / "mine" / "network.py").write_text(
        "import torch\n"
        "from windlass import PreTrainedModel\n"
        "from windlass.config import PretrainedConfig\n"
        "from .body import SIZE\n"
        "class Network(PreTrainedModel):\n"
        "    config_class = PretrainedConfig\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.weight = torch.nn.Parameter(torch.ones(SIZE))\n"
        "        self.post_init()\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        from mine.network import Network
    finally:
        sys.path.remove(str(tmp_path))
    Network.register_for_auto_class("AutoModel")
    config = PretrainedConfig()
    Network(config).save_pretrained(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["auto_map"] == {"AutoModel": "network.Network"}
    assert (tmp_path / "out" / "body.py").exists()
    assert getattr(config, "auto_map", None) is None
    with pytest.raises(ValueError, match="Model"):
        Network.register_for_auto_class("Model")


def test_attributes_of_the_config_do_not_leak_from_a_load(tmp_path: Path) -> None:
    saved(tmp_path)
    one = Labels.from_pretrained(tmp_path)
    two = Labels.from_pretrained(tmp_path)
    one.config.hidden_size = 99
    assert two.config.hidden_size == 6
