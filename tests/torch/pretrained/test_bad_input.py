"""What cannot be loaded is refused by its documented class, in words that say what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from builders.pretrained import MODELS, new_model, saved
from windlass import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Labels = MODELS.TinyForLabels


def _without_weights(folder: Path) -> None:
    os.remove(folder / "model.safetensors")


def _of_tensorflow(folder: Path) -> None:
    _without_weights(folder)
    (folder / "tf_model.h5").write_bytes(b"x")


def _of_adapter(folder: Path) -> None:
    _without_weights(folder)
    (folder / "adapter_config.json").write_text("{}")


def _beside_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _only_adapter(folder: Path) -> None:
    _of_adapter(folder)
    os.remove(folder / "config.json")


def _without_shard(folder: Path) -> None:
    _without_weights(folder)
    new_model().save_pretrained(folder, max_shard_size=300)
    os.remove(min(folder.glob("model-*")))


def _without_config(folder: Path) -> None:
    os.remove(folder / "config.json")


def _config_of(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(text) and None


def _cut(folder: Path) -> None:
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(200)


def _format_of(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        state = {k: v.contiguous() for k, v in new_model().state_dict().items()}
        safetensors.torch.save_file(state, folder / "model.safetensors", {"format": name})

    return write


def _pickle_of_strangers(folder: Path) -> None:
    _without_weights(folder)
    torch.save({"x": _pickle_of_strangers}, folder / "pytorch_model.bin")


def _list(folder: Path) -> None:
    _without_weights(folder)
    torch.save([torch.zeros(2)], folder / "pytorch_model.bin")


BAD: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "no weights": (_without_weights, errors.CheckpointNotFound, "model.safetensors"),
    "tensorflow": (_of_tensorflow, errors.CheckpointNotFound, "tf_model.h5"),
    "adapter": (_of_adapter, errors.NotSupported, "PEFT"),
    "adapter beside weights": (_beside_adapter, errors.NotSupported, "peft"),
    "nothing but an adapter": (_only_adapter, errors.NotSupported, "peft"),
    "no shard": (_without_shard, errors.ShardNotFound, "model-00001"),
    "no config": (_without_config, errors.ConfigNotFound, "config.json"),
    "config of garbage": (_config_of("{"), errors.InvalidConfigFile, "config.json"),
    "config of a list": (_config_of("[1]"), errors.InvalidConfigFile, "object"),
    "cut": (_cut, errors.InvalidHeader, "model.safetensors"),
    "tf format": (_format_of("tf"), errors.NotSupported, "tf"),
    "unknown format": (_format_of("abc"), errors.UnknownFormat, "abc"),
    "unsafe pickle": (_pickle_of_strangers, errors.InvalidPickle, "weights_only"),
    "list": (_list, errors.InvalidPickle, "dict"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_folder(tmp_path: Path, kind: str) -> None:
    saved(tmp_path)
    damage, error, word = BAD[kind]
    damage(tmp_path)
    with pytest.raises(error, match=word) as caught:
        Labels.from_pretrained(tmp_path)
    assert isinstance(caught.value, errors.WindlassError)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nothing"])
def test_folder_that_is_not_there(path: str) -> None:
    with pytest.raises(errors.WindlassError, match="no such") as caught:
        Labels.from_pretrained(path, config=MODELS.TinyConfig())
    assert isinstance(caught.value, OSError)


def test_subfolder_that_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        Labels.from_pretrained(tmp_path, subfolder="nowhere", config=MODELS.TinyConfig())


@pytest.mark.parametrize(
    "name", ["tf_model.h5", "flax_model.msgpack", "a.gguf", "model.ckpt.index"]
)
def test_file_of_a_format_that_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(errors.NotSupported, match=name):
        Labels.from_pretrained(tmp_path / name, config=MODELS.TinyConfig())


def test_neither_path_nor_state_dict() -> None:
    with pytest.raises(ValueError, match="state_dict"):
        Labels.from_pretrained(None, config=MODELS.TinyConfig())


def test_state_dict_without_config() -> None:
    with pytest.raises(ValueError, match="config"):
        Labels.from_pretrained(None, state_dict={})


def test_config_that_is_a_dictionary(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match=r"config .*dict.*TinyConfig"):
        Labels.from_pretrained(tmp_path, config={"hidden_size": 6})


def test_model_that_memory_does_not_hold() -> None:
    config = MODELS.TinyConfig(vocab_size=10**13)
    with pytest.raises(errors.NotEnoughMemory, match="TinyForLabels"):
        Labels.from_pretrained(None, config=config, state_dict={})


def test_class_without_config_class(tmp_path: Path) -> None:
    saved(tmp_path)
    kind = type("Bare", (Labels,), {"config_class": None})
    with pytest.raises(ValueError, match="config_class"):
        kind.from_pretrained(tmp_path)


def test_value_of_a_state_dict_that_is_no_tensor() -> None:
    state: dict[str, Any] = {**new_model().state_dict(), "classifier.bias": "text"}
    with pytest.raises(errors.InvalidPickle, match=r"classifier\.bias"):
        Labels.from_pretrained(None, config=MODELS.TinyConfig(), state_dict=state)


@pytest.mark.parametrize("option", [{"io": "fast"}, {"cache": "all"}, {"threads": -1}], ids=str)
def test_reading_option_that_is_none(tmp_path: Path, option: dict[str, Any]) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match=next(iter(option))):
        Labels.from_pretrained(tmp_path, **option)
