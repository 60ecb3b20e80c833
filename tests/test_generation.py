"""`GenerationConfig`, compared with that of transformers 4.46.3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from oracle.config_classes import config_classes, describe_generation
from windlass import GenerationConfig, PretrainedConfig
from windlass.errors import ConfigNotFound, SaveFailed

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.client import Oracle

CLASSES = config_classes(PretrainedConfig)

#: Values that 4.46.3's check lets pass in any combination.
VALID = {
    "max_length": st.integers(1, 9),
    "max_new_tokens": st.none() | st.integers(1, 9),
    "min_length": st.integers(0, 3),
    "max_time": st.none() | st.just(1.5),
    "stop_strings": st.none() | st.just(["end"]),
    "repetition_penalty": st.sampled_from([1.0, 1.3]),
    "bad_words_ids": st.none() | st.just([[1, 2]]),
    "sequence_bias": st.none() | st.just({(1,): 2.0}),
    "pad_token_id": st.none() | st.integers(0, 5),
    "eos_token_id": st.none() | st.integers(0, 5) | st.just([1, 2]),
    "use_cache": st.booleans(),
    "num_assistant_tokens": st.integers(1, 30),
    "generation_kwargs": st.sampled_from([{}, {"a": 1}]),
    "transformers_version": st.just("4.1.0"),
    "mood": st.sampled_from(["good", None, {"torch_dtype": "float16"}]),
}
ARGUMENTS = st.fixed_dictionaries({}, optional=VALID)


@given(ARGUMENTS)
def test_parameters_are_those_of_446(oracle: Oracle, arguments: dict[str, Any]) -> None:
    [answer] = oracle.ask("config.generation", [{"arguments": arguments}])
    assert_same(answer, lambda: describe_generation(GenerationConfig(**arguments)))


@given(
    st.sampled_from(["base", "mapped", "changed", "composed"]),
    st.fixed_dictionaries(
        {},
        optional={
            "max_length": st.integers(1, 9),
            "bos_token_id": st.integers(0, 3),
            "output_attentions": st.booleans(),
            "forced_eos_token_id": st.none() | st.integers(0, 3),
            "mood": st.just("good"),
        },
    ),
    st.fixed_dictionaries({}, optional={"max_length": st.just(7), "eos_token_id": st.just(3)}),
)
def test_an_old_config_of_a_model_gives_the_parameters_of_446(
    oracle: Oracle, kind: str, arguments: dict[str, Any], decoder: dict[str, Any]
) -> None:
    if kind == "composed":
        arguments["decoder"] = decoder
    case = {"kind": kind, "arguments": arguments}
    [answer] = oracle.ask("config.generation_of_model", [case])
    config = CLASSES[kind](**arguments)
    assert_same(answer, lambda: describe_generation(GenerationConfig.from_model_config(config)))


@given(ARGUMENTS, st.sampled_from([{}, {"max_length": 3}, {"foo": 1}]))
def test_file_is_read_as_by_446(
    oracle: Oracle,
    tmp_path_factory: pytest.TempPathFactory,
    arguments: dict[str, Any],
    given_too: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("generation")
    GenerationConfig(**arguments).save_pretrained(folder)
    case = {"path": str(folder), "arguments": given_too}
    [answer] = oracle.ask("config.generation_from_folder", [case])

    def ours() -> list[Any]:
        config, unused = GenerationConfig.from_pretrained(
            folder, return_unused_kwargs=True, **given_too
        )
        return [describe_generation(config), unused]

    assert_same(answer, ours)


def test_what_446_refuses_to_save_is_kept(tmp_path: Path) -> None:
    GenerationConfig(do_sample=False, temperature=0.5).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).temperature == 0.5


def test_caches_and_watermarks_stay_dictionaries(tmp_path: Path) -> None:
    written = {"cache_implementation": "static", "cache_config": {"batch_size": 1}}
    (tmp_path / "generation_config.json").write_text(json.dumps(written))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.cache_config == {"batch_size": 1}
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved.items() >= written.items()


def test_file_may_have_another_name(tmp_path: Path) -> None:
    GenerationConfig(top_k=3).save_pretrained(tmp_path, "mine.json")
    assert GenerationConfig.from_pretrained(tmp_path, "mine.json").top_k == 3
    with pytest.raises(ConfigNotFound, match=r"generation_config\.json"):
        GenerationConfig.from_pretrained(tmp_path)


def test_equal_parameters_are_equal_wherever_they_come_from() -> None:
    one = GenerationConfig(top_k=3, _commit_hash="a")
    other = GenerationConfig(top_k=3, transformers_version="4.0.0")
    assert one == other
    assert hash(one) == hash(other)
    assert one != GenerationConfig()
    assert one != 3


def test_only_known_parameters_are_updated() -> None:
    config = GenerationConfig()
    assert config.update(top_k=3, foo=1) == {"foo": 1}
    assert config.top_k == 3
    assert not hasattr(config, "foo")


def test_save_over_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(SaveFailed, match="found a file"):
        GenerationConfig().save_pretrained(tmp_path / "taken")
