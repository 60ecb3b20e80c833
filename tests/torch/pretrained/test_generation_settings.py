"""What belongs to generation: from its file, changed by the caller, told where it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from builders.pretrained import MODELS
from windlass import errors

if TYPE_CHECKING:
    from pathlib import Path


class Speaker(MODELS.TinyForTokens):
    def prepare_inputs_for_generation(self, input_ids: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = Speaker(MODELS.TinyConfig())
    model.generation_config.top_k = 7
    model.save_pretrained(tmp_path)
    return tmp_path


def test_keywords_change_the_generation_config_too(folder: Path) -> None:
    again = Speaker.from_pretrained(folder, max_length=99, do_sample=True)
    found = again.generation_config
    assert (found.max_length, found.do_sample, found.top_k) == (99, True, 7)
    assert again.config.max_length == 99


def test_options_of_loading_do_not_reach_the_generation_config(folder: Path) -> None:
    again = Speaker.from_pretrained(folder, torch_dtype="float16", device_map="cpu")
    assert not hasattr(again.generation_config, "device_map")
    assert again.generation_config == Speaker.from_pretrained(folder).generation_config


def test_damaged_generation_config_is_an_error(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{ broken")
    with pytest.raises(errors.InvalidConfigFile, match="generation_config"):
        Speaker.from_pretrained(folder)
