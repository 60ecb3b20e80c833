"""Every argument of `from_pretrained` has its effect."""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.pretrained import MODELS, assert_same_state, new_model, saved, state_of, write_folder
from windlass import PreTrainedModel, errors

if TYPE_CHECKING:
    from pathlib import Path

Labels = MODELS.TinyForLabels


def test_no_path_takes_config_and_state_dict() -> None:
    model = new_model()
    again = Labels.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert_same_state(again.state_dict(), model.state_dict())


def test_state_dict_goes_before_the_files(tmp_path: Path) -> None:
    saved(tmp_path)
    other = new_model(seed=1)
    given = other.state_dict()
    names = list(given)
    again = Labels.from_pretrained(tmp_path, state_dict=given)
    assert_same_state(again.state_dict(), other.state_dict())
    assert list(given) == names
    assert again.classifier.weight is not given["classifier.weight"]


def test_loaded_weights_do_not_look_into_a_given_state_dict(tmp_path: Path) -> None:
    saved(tmp_path)
    given = state_of(new_model())
    again = Labels.from_pretrained(tmp_path, state_dict=given)
    given["classifier.bias"].fill_(77)
    assert 77 not in again.classifier.bias


def test_config_object_is_used_and_not_changed(tmp_path: Path) -> None:
    saved(tmp_path, num_layers=2)
    config = MODELS.TinyConfig(num_layers=1)
    before = config.to_dict()
    again = Labels.from_pretrained(tmp_path, config=config)
    assert len(again.tiny.layers) == 1
    assert config.to_dict() == before
    assert again.config is not config


def test_config_path_is_loaded_from(tmp_path: Path) -> None:
    saved(tmp_path / "weights")
    MODELS.TinyConfig(initializer_range=0.5).save_pretrained(tmp_path / "config")
    again = Labels.from_pretrained(tmp_path / "weights", config=tmp_path / "config")
    assert again.config.initializer_range == 0.5


def test_keywords_go_to_the_config_first_and_then_to_the_model(tmp_path: Path) -> None:
    saved(tmp_path, "TinyModel")
    again = MODELS.TinyModel.from_pretrained(tmp_path, initializer_range=0.5, extra="words")
    assert again.config.initializer_range == 0.5
    assert again.extra == "words"


def test_with_a_config_all_keywords_go_to_the_model(tmp_path: Path) -> None:
    model = saved(tmp_path, "TinyModel")
    with pytest.raises(TypeError, match="initializer_range"):
        MODELS.TinyModel.from_pretrained(tmp_path, config=model.config, initializer_range=0.5)


def test_further_positional_arguments_go_to_the_model(tmp_path: Path) -> None:
    saved(tmp_path, "TinyModel")
    assert MODELS.TinyModel.from_pretrained(tmp_path, "words").extra == "words"


@pytest.mark.parametrize("name", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("wanted", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_dtype_is_that_asked_for(tmp_path: Path, name: str, wanted: object) -> None:
    model = saved(tmp_path)
    again = Labels.from_pretrained(tmp_path, **{name: wanted})
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert torch.equal(again.classifier.weight, model.classifier.weight.bfloat16())
    assert torch.get_default_dtype() == torch.float32


def test_dtype_is_float32_where_none_is_asked_for(tmp_path: Path) -> None:
    new_model().half().save_pretrained(tmp_path)
    assert Labels.from_pretrained(tmp_path).dtype == torch.float32


def test_auto_dtype_is_that_of_the_config(tmp_path: Path) -> None:
    new_model().half().save_pretrained(tmp_path)
    assert Labels.from_pretrained(tmp_path, torch_dtype="auto").dtype == torch.float16


def test_auto_dtype_is_that_of_the_weights_where_the_config_has_none(tmp_path: Path) -> None:
    state = {name: one.bfloat16() for name, one in new_model("TinyModel").state_dict().items()}
    state["steps"] = torch.tensor([3, 4])
    write_folder(tmp_path, state)
    assert MODELS.TinyModel.from_pretrained(tmp_path, torch_dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize("wanted", ["int8", torch.int64, "no_such", "float33", 5])
def test_dtype_that_no_model_has_is_refused(tmp_path: Path, wanted: object) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="dtype"):
        Labels.from_pretrained(tmp_path, torch_dtype=wanted)
    assert torch.get_default_dtype() == torch.float32


def test_dtypes_that_contradict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contradict"):
        Labels.from_pretrained(tmp_path, dtype="float16", torch_dtype="bfloat16")


@pytest.mark.parametrize(
    ("strict", "dtype", "kept"),
    [
        (False, torch.float16, True),
        (False, torch.bfloat16, False),
        (True, torch.float16, True),
        (True, torch.bfloat16, True),
        (True, None, True),
    ],
)
def test_modules_are_kept_in_float32(
    tmp_path: Path, *, strict: bool, dtype: torch.dtype | None, kept: bool
) -> None:
    model = saved(tmp_path)
    attribute = "_keep_in_fp32_modules_strict" if strict else "_keep_in_fp32_modules"
    kind = type("Kept", (Labels,), {attribute: ["LayerNorm"]})
    again = kind.from_pretrained(tmp_path, torch_dtype=dtype)
    norm = again.tiny.layers[0].LayerNorm
    assert (norm.weight.dtype == torch.float32) == kept
    assert torch.equal(
        norm.weight.float(), model.tiny.layers[0].LayerNorm.weight.to(norm.weight.dtype).float()
    )
    assert again.classifier.weight.dtype == (dtype or torch.float32)


@pytest.mark.parametrize(
    "device_map", ["cpu", torch.device("cpu"), {"": "cpu"}, {"": "cpu", "tiny": "cpu"}]
)
def test_device_map_of_one_device_works(tmp_path: Path, device_map: object) -> None:
    model = saved(tmp_path)
    again = Labels.from_pretrained(tmp_path, device_map=device_map)
    assert again.hf_device_map == {"": torch.device("cpu")}
    assert_same_state(again.state_dict(), model.state_dict())


def test_device_map_puts_everything_on_its_device(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(errors.MetaParameter):  # It was built there, and there is nothing to fill.
        Labels.from_pretrained(tmp_path, device_map="meta")


@pytest.mark.parametrize("device_map", [-1, "no such", {"tiny": "cpu"}, {}])
def test_device_map_that_means_nothing_is_refused(tmp_path: Path, device_map: object) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="device_map"):
        Labels.from_pretrained(tmp_path, device_map=device_map)


def test_device_map_and_no_low_memory_contradict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="low_cpu_mem_usage"):
        Labels.from_pretrained(tmp_path, device_map="cpu", low_cpu_mem_usage=False)


@pytest.mark.parametrize("low_cpu_mem_usage", [None, True, False])
def test_low_cpu_mem_usage_changes_nothing(
    tmp_path: Path, *, low_cpu_mem_usage: bool | None
) -> None:
    model = saved(tmp_path)
    again = Labels.from_pretrained(tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert_same_state(again.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    "option",
    [
        {"from_tf": True},
        {"from_flax": True},
        {"gguf_file": "a.gguf"},
        {"quantization_config": {"quant_method": "gptq"}},
        {"load_in_8bit": True},
        {"load_in_4bit": True},
        {"device_map": "auto"},
        {"device_map": "balanced"},
        {"device_map": {"": 0, "tiny": "cpu"}},
        {"device_map": {"": "disk"}},
        {"max_memory": {0: "1GB"}},
        {"offload_folder": "x"},
        {"offload_state_dict": True},
        {"offload_buffers": True},
        {"adapter_kwargs": {"a": 1}},
    ],
    ids=str,
)
def test_option_that_is_not_there_yet_is_refused_by_name(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    saved(tmp_path)
    with pytest.raises(errors.NotSupported, match=next(iter(option))) as caught:
        Labels.from_pretrained(tmp_path, **option)
    assert isinstance(caught.value, NotImplementedError)


def test_options_that_are_off_are_no_options(tmp_path: Path) -> None:
    saved(tmp_path)
    off = {"from_tf": False, "load_in_8bit": False, "max_memory": None, "offload_folder": None}
    Labels.from_pretrained(tmp_path, **off)


def test_quantised_checkpoint_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, quantization_config={"quant_method": "gptq"})
    with pytest.raises(errors.NotSupported, match="gptq"):
        Labels.from_pretrained(tmp_path)


def test_mismatched_sizes_are_one_error_with_all_of_them(tmp_path: Path) -> None:
    saved(tmp_path, vocab_size=11, hidden_size=6)
    with pytest.raises(errors.IncompatibleKeys) as caught:
        Labels.from_pretrained(tmp_path, vocab_size=12, num_labels=5)
    message = str(caught.value)
    for part in ("tiny.embed.weight", "[11, 6]", "[12, 6]", "classifier.bias", "[2]", "[5]"):
        assert part in message
    assert "ignore_mismatched_sizes" in caught.value.__notes__[0]
    assert len(caught.value.mismatched_keys) == 3


def test_ignored_mismatched_sizes_are_initialised(tmp_path: Path) -> None:
    model = saved(tmp_path)
    again, info = Labels.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert again.classifier.bias.tolist() == [0.0] * 5
    assert_same_state(again.tiny.state_dict(), model.tiny.state_dict())
    assert sorted(info["mismatched_keys"]) == [
        ("classifier.bias", torch.Size([2]), torch.Size([5])),
        ("classifier.weight", torch.Size([2, 6]), torch.Size([5, 6])),
    ]


def test_subfolder_is_looked_into(tmp_path: Path) -> None:
    model = saved(tmp_path / "a" / "b")
    again = Labels.from_pretrained(tmp_path, subfolder="a/b")
    assert_same_state(again.state_dict(), model.state_dict())


def test_variant_is_chosen(tmp_path: Path) -> None:
    plain, other = saved(tmp_path), new_model(seed=1)
    other.save_pretrained(tmp_path, variant="fp16")
    for variant, model in ((None, plain), ("fp16", other)):
        again = Labels.from_pretrained(tmp_path, variant=variant)
        assert_same_state(again.state_dict(), model.state_dict())


def test_variant_that_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(errors.CheckpointNotFound, match=r"model\.fp16\.safetensors.*leave variant"):
        Labels.from_pretrained(tmp_path, variant="fp16")


@pytest.mark.parametrize("variant", ["", "a/b", 3])
def test_variant_that_is_no_part_of_a_name_is_refused(tmp_path: Path, variant: object) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="variant"):
        Labels.from_pretrained(tmp_path, variant=variant)


def test_use_safetensors_chooses_the_format(tmp_path: Path) -> None:
    safe, pickled = saved(tmp_path), new_model(seed=1)
    pickled.save_pretrained(tmp_path, safe_serialization=False)
    for use, model in ((None, safe), (True, safe), (False, pickled)):
        again = Labels.from_pretrained(tmp_path, use_safetensors=use)
        assert_same_state(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("use", [True, False])
def test_format_that_is_not_there_is_told_with_what_is(tmp_path: Path, *, use: bool) -> None:
    new_model().save_pretrained(tmp_path, safe_serialization=not use)
    with pytest.raises(errors.CheckpointNotFound, match="leave use_safetensors out") as caught:
        Labels.from_pretrained(tmp_path, use_safetensors=use)
    assert isinstance(caught.value, OSError)


class Stranger:
    """What a pickle of weights only does not hold."""


def test_weights_only_refuses_other_objects(tmp_path: Path) -> None:
    model = new_model()
    model.config.save_pretrained(tmp_path)
    state = {**model.state_dict(), "stranger": Stranger()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(errors.InvalidPickle, match="weights_only=True"):
        Labels.from_pretrained(tmp_path)
    again = Labels.from_pretrained(tmp_path, weights_only=False)
    assert_same_state(again.state_dict(), model.state_dict())


def test_missing_weights_keep_what_the_constructor_gave(tmp_path: Path) -> None:
    state = dict(new_model("TinyModel").state_dict())
    del state["gain"]
    write_folder(tmp_path, state)
    assert MODELS.TinyModel.from_pretrained(tmp_path).gain.tolist() == [0.5] * 6


class _Plain(PreTrainedModel):
    """Says nothing about how its modules are initialised."""

    config_class = MODELS.TinyConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.given = torch.nn.Linear(4, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.dense = torch.nn.Linear(4, 4)
        self.attention = torch.nn.MultiheadAttention(4, 2)
        self.post_init()


def test_missing_weights_of_a_class_that_says_nothing_are_drawn_as_torch_does(
    tmp_path: Path,
) -> None:
    model = _Plain(MODELS.TinyConfig())
    state = {name: one for name, one in model.state_dict().items() if "given" in name}
    state["dense.bias"] = torch.full((4,), 7.0)
    write_folder(tmp_path, state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", lambda *args, **kwargs: _empty(*args, **kwargs).fill_(9))
        again = _Plain.from_pretrained(tmp_path)
    assert torch.equal(again.given.weight, model.given.weight)
    assert again.norm.weight.tolist() == [1.0] * 4
    assert again.norm.bias.tolist() == [0.0] * 4
    assert again.dense.bias.tolist() == [7.0] * 4
    for weight in (again.dense.weight, again.attention.in_proj_weight):
        assert 0 < weight.abs().max() < 2


_empty = torch.empty


def test_without_fast_init_everything_is_initialised_first(tmp_path: Path) -> None:
    seen: list[str] = []

    class Counting(Labels):
        def _init_weights(self, module: torch.nn.Module) -> None:
            seen.append(type(module).__name__)
            super()._init_weights(module)

    model = saved(tmp_path)
    Counting.from_pretrained(tmp_path)
    assert seen == []
    again = Counting.from_pretrained(tmp_path, _fast_init=False)
    assert "Linear" in seen
    assert_same_state(again.state_dict(), model.state_dict())


def test_attn_implementation_is_chosen(tmp_path: Path) -> None:
    saved(tmp_path)
    assert Labels.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
    again = Labels.from_pretrained(tmp_path, attn_implementation="eager")
    assert again.config._attn_implementation == "eager"
    again = Labels.from_pretrained(tmp_path, config=again.config, attn_implementation="sdpa")
    assert again.config._attn_implementation == "sdpa"


def test_attention_that_is_not_there_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="flash_attention_2"):
        Labels.from_pretrained(tmp_path, attn_implementation="flash_attention_2")
    with pytest.raises(ValueError, match="nonsense"):
        Labels.from_pretrained(tmp_path, attn_implementation="nonsense")
    with (
        pytest.warns(FutureWarning, match="use_flash_attention_2"),
        pytest.raises(ValueError, match="flash"),
    ):
        Labels.from_pretrained(tmp_path, use_flash_attention_2=True)


class Speaker(Labels):
    def prepare_inputs_for_generation(self, input_ids: torch.Tensor) -> dict[str, Any]:
        return {"input_ids": input_ids}


def test_generation_config_comes_with_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Speaker(MODELS.TinyConfig())
    model.generation_config.top_k = 7
    model.save_pretrained(tmp_path)
    assert Speaker.from_pretrained(tmp_path).generation_config.top_k == 7
    model.generation_config.top_k = 9
    again = Speaker.from_pretrained(tmp_path, generation_config=model.generation_config)
    assert again.generation_config.top_k == 9


def test_model_without_generation_config_goes_by_its_own(tmp_path: Path) -> None:
    Speaker(MODELS.TinyConfig()).save_pretrained(tmp_path)
    os.remove(tmp_path / "generation_config.json")
    assert Speaker.from_pretrained(tmp_path).generation_config.top_k == 50


@pytest.mark.parametrize("name", ["mirror", "resume_download"])
def test_argument_without_effect_warns(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    with pytest.warns(FutureWarning, match=name):
        Labels.from_pretrained(tmp_path, **{name: "tuna"})


@pytest.mark.parametrize("name", ["code_revision", "adapter_name", "_commit_hash"])
def test_argument_of_what_is_not_there_warns(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    Labels.from_pretrained(tmp_path, **{name: None})
    with pytest.warns(UserWarning, match=f"{name} has no effect"):
        Labels.from_pretrained(tmp_path, **{name: "tuna"})


def test_trust_remote_code_is_told_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path)
    Labels.from_pretrained(tmp_path, trust_remote_code=True)
    assert "trust_remote_code" in caplog.text


def test_old_name_of_token_warns_and_contradicts_the_new_one(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.warns(FutureWarning, match="use_auth_token"):
        Labels.from_pretrained(tmp_path, use_auth_token="x")
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="token"):
        Labels.from_pretrained(tmp_path, use_auth_token="x", token="y")


@pytest.mark.parametrize("io", ["buffered", "direct", "mapped"])
def test_reading_options_reach_the_engine(
    tmp_path: Path, io: Any, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path)
    told: list[tuple[int, int]] = []
    with caplog.at_level(logging.DEBUG, "windlass"):
        Labels.from_pretrained(
            tmp_path, io=io, threads=1, cache="drop", progress=lambda *now: told.append(now)
        )
    lines = [one.getMessage() for one in caplog.records if one.name == "windlass"]
    line = next(line for line in lines if f"GB {io}" in line)
    assert "1 threads" in line
    assert told[-1][0] == told[-1][1]


def test_single_file_is_loaded_with_the_config_beside_it(tmp_path: Path) -> None:
    model = saved(tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    again = Labels.from_pretrained(tmp_path / "other.safetensors")
    assert_same_state(again.state_dict(), model.state_dict())


def test_index_is_loaded_as_a_path(tmp_path: Path) -> None:
    model = new_model()
    model.save_pretrained(tmp_path, max_shard_size=300)
    again = Labels.from_pretrained(tmp_path / "model.safetensors.index.json")
    assert_same_state(again.state_dict(), model.state_dict())


def test_single_file_goes_before_an_index(tmp_path: Path) -> None:
    sharded, single = new_model(seed=1), new_model()
    sharded.save_pretrained(tmp_path / "s", max_shard_size=300)
    single.save_pretrained(tmp_path)
    for file in (tmp_path / "s").iterdir():
        shutil.copy(file, tmp_path / file.name)
    again = Labels.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), single.state_dict())


def test_name_or_path_is_where_it_was_loaded_from(tmp_path: Path) -> None:
    saved(tmp_path)
    again = Labels.from_pretrained(tmp_path)
    assert again.name_or_path == str(tmp_path)
    assert again.config.name_or_path == str(tmp_path)


def test_windlass_exports_the_class() -> None:
    import windlass.modeling_utils

    assert windlass.PreTrainedModel is windlass.modeling_utils.PreTrainedModel
