"""Every argument of `save_pretrained` has its effect; a save that is refused writes nothing."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
import windlass
from builders.pretrained import MODELS, assert_same_state, new_model, saved
from windlass import errors, text_files

if TYPE_CHECKING:
    from pathlib import Path

Labels, Tokens = MODELS.TinyForLabels, MODELS.TinyForTokens


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_folder_is_made(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "b")
    assert files(tmp_path / "a" / "b") == ["config.json", "model.safetensors"]


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.SaveFailed, match="is a file"):
        new_model().save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "x", is_main_process=False)
    assert not (tmp_path / "x").exists()


def test_save_config_is_the_old_name_of_is_main_process(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="is_main_process"):
        new_model().save_pretrained(tmp_path / "x", save_config=False)
    assert not (tmp_path / "x").exists()


def test_state_dict_is_saved_instead_of_the_models(tmp_path: Path) -> None:
    model, other = new_model(), new_model(seed=1)
    model.save_pretrained(tmp_path, state_dict=other.state_dict())
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), other.state_dict())


def test_part_of_a_state_dict_is_saved(tmp_path: Path) -> None:
    model = new_model()
    part = {name: one for name, one in model.state_dict().items() if "classifier" in name}
    model.save_pretrained(tmp_path, state_dict=part)
    assert sorted(windlass.Checkpoint(tmp_path)) == sorted(part)


def test_save_function_writes_each_pickle(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def save(tensors: dict[str, torch.Tensor], path: str) -> None:
        calls.append(sorted(tensors))
        torch.save(tensors, path)

    model = new_model()
    model.save_pretrained(
        tmp_path, save_function=save, safe_serialization=False, max_shard_size=300
    )
    assert sum(map(len, calls)) == len(model.state_dict())
    assert len(calls) > 1
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), model.state_dict())


def test_save_function_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    model = saved(tmp_path)
    model.save_pretrained(tmp_path, safe_serialization=False)
    before = files(tmp_path)

    def fail(tensors: dict[str, torch.Tensor], path: str) -> None:
        del tensors, path
        raise KeyError("no")

    with pytest.raises(KeyError):
        new_model(seed=1).save_pretrained(tmp_path, save_function=fail, safe_serialization=False)
    assert files(tmp_path) == before
    again = Labels.from_pretrained(tmp_path, use_safetensors=False)
    assert_same_state(again.state_dict(), model.state_dict())


def test_save_function_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.SaveFailed, match="save_function"):
        new_model().save_pretrained(
            tmp_path, save_function=lambda *_: None, safe_serialization=False
        )
    assert "pytorch_model.bin" not in files(tmp_path)


def test_save_function_for_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="safe_serialization=False"):
        new_model().save_pretrained(tmp_path, save_function=print)


@pytest.mark.parametrize("size", [300, "0.3KB"])
def test_max_shard_size_is_the_largest_file(tmp_path: Path, size: Any) -> None:
    new_model().save_pretrained(tmp_path, max_shard_size=size)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2


def test_size_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="much"):
        new_model().save_pretrained(tmp_path / "x", max_shard_size="much")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("safe", [True, False])
def test_safe_serialization_chooses_the_format(tmp_path: Path, *, safe: bool) -> None:
    new_model().save_pretrained(tmp_path, safe_serialization=safe)
    assert ("model.safetensors" in files(tmp_path)) == safe
    assert ("pytorch_model.bin" in files(tmp_path)) == (not safe)


def test_variant_is_in_every_name_as_transformers_has_it(tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path, variant="fp16", max_shard_size=600)
    assert files(tmp_path) == [
        "config.json",
        "model.fp16-00001-of-00002.safetensors",
        "model.fp16-00002-of-00002.safetensors",
        "model.safetensors.index.fp16.json",
    ]


@pytest.mark.parametrize("variant", ["", "a/b", 3])
def test_variant_that_is_no_part_of_a_name_is_refused(tmp_path: Path, variant: Any) -> None:
    with pytest.raises(ValueError, match="variant"):
        new_model().save_pretrained(tmp_path / "x", variant=variant)
    assert not (tmp_path / "x").exists()


def test_save_replaces_shards_and_index_and_no_other_variant(tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path, variant="fp16", max_shard_size=300)
    new_model().save_pretrained(tmp_path, max_shard_size=300)
    other = [name for name in files(tmp_path) if "fp16" in name]
    model = saved(tmp_path, seed=1)
    assert files(tmp_path) == sorted(["config.json", "model.safetensors", *other])
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), model.state_dict())


def test_ignored_names_are_not_saved(tmp_path: Path) -> None:
    kind = type("Quiet", (Labels,), {"_keys_to_ignore_on_save": ["tiny.steps", "not there"]})
    kind(MODELS.TinyConfig()).save_pretrained(tmp_path)
    assert "tiny.steps" not in windlass.Checkpoint(tmp_path)


def test_half_precision_is_said_in_the_config(tmp_path: Path) -> None:
    new_model().half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float16"


def test_file_says_that_torch_wrote_it(tmp_path: Path) -> None:
    saved(tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_undeclared_tie_is_refused_with_its_names(tmp_path: Path) -> None:
    model = new_model()
    model.tiny.layers[1].dense.weight = model.tiny.layers[0].dense.weight
    with pytest.raises(errors.SharedTensors) as caught:
        model.save_pretrained(tmp_path / "x")
    assert all(f"tiny.layers.{n}.dense.weight" in str(caught.value) for n in (0, 1))
    assert not (tmp_path / "x").exists()


def test_overlapping_weights_are_refused_with_their_names(tmp_path: Path) -> None:
    model = new_model()
    model.tiny.gain.data = model.tiny.layers[0].dense.bias.data[:4]
    with pytest.raises(errors.SharedTensors, match=r"tiny\.gain"):
        model.save_pretrained(tmp_path / "x")


def test_views_that_share_no_byte_are_saved(tmp_path: Path) -> None:
    model = new_model()
    whole = torch.arange(12.0)
    model.tiny.layers[0].dense.bias.data = whole[:6]
    model.tiny.layers[1].dense.bias.data = whole[6:]
    model.save_pretrained(tmp_path)
    again = Labels.from_pretrained(tmp_path)
    assert again.tiny.layers[1].dense.bias.tolist() == [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]


def test_pickles_keep_undeclared_ties(tmp_path: Path) -> None:
    model = new_model()
    model.tiny.layers[1].dense.weight = model.tiny.layers[0].dense.weight
    model.save_pretrained(tmp_path, safe_serialization=False)
    again = Labels.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), model.state_dict())


def test_checksums_are_stored(tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path, checksums=True)
    assert windlass.verify(tmp_path) == []
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    assert len(windlass.verify(tmp_path)) == 1


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    new_model().save_pretrained(
        tmp_path, durable=True, threads=1, progress=lambda *now: told.append(now)
    )
    assert told[-1][0] == told[-1][1] > 0


def test_token_contradicts_its_old_name(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="use_auth_token"):
        new_model().save_pretrained(tmp_path, token="x", use_auth_token="y")


def test_unknown_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="max_shards"):
        new_model().save_pretrained(tmp_path / "x", max_shards=3)
    assert not (tmp_path / "x").exists()


def test_save_peft_format_is_for_adapters_only(tmp_path: Path) -> None:
    model = new_model()
    model.save_pretrained(tmp_path, save_peft_format=False)
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), model.state_dict())
    model._hf_peft_config_loaded = True
    with pytest.raises(errors.NotSupported, match="PEFT"):
        model.save_pretrained(tmp_path / "x")


def test_generation_config_is_saved_for_models_that_generate(tmp_path: Path) -> None:
    class Speaker(Tokens):
        def generate(self) -> None: ...

    model = Speaker(MODELS.TinyConfig())
    model.generation_config.top_k = 3
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["top_k"] == 3


def test_settings_of_generation_move_out_of_the_saved_config(tmp_path: Path) -> None:
    class Speaker(Tokens):
        def generate(self) -> None: ...

    model = Speaker(MODELS.TinyConfig())
    model.config.top_k = 3
    with pytest.warns(UserWarning, match="top_k"):
        model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["top_k"] == 3
    assert model.config.top_k == 3
    assert model.generation_config.top_k == 50


def test_weights_that_cannot_be_written_leave_the_old_configuration(tmp_path: Path) -> None:
    model = saved(tmp_path)
    before = (tmp_path / "config.json").read_bytes()

    def stop(done: int, total: int) -> None:
        del done, total
        raise KeyError

    with pytest.raises(KeyError):
        new_model(num_layers=3).save_pretrained(tmp_path, progress=stop)
    assert files(tmp_path) == ["config.json", "model.safetensors"]
    assert (tmp_path / "config.json").read_bytes() == before
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), model.state_dict())


def test_weights_that_are_in_place_have_their_configuration_whatever_comes_after(
    tmp_path: Path,
) -> None:
    saved(tmp_path)
    new = new_model(num_layers=3)

    def obstruct(_: int, __: int) -> None:
        for work in tmp_path.glob("model.windlass-*"):
            (work / "of somebody else").mkdir(exist_ok=True)

    with pytest.raises(errors.TidyingFailed):
        new.save_pretrained(tmp_path, max_shard_size="1KB", progress=obstruct)
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), new.state_dict())


def test_configuration_that_cannot_be_written_leaves_the_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path)
    other = new_model(seed=1)
    other.config.odd = object()
    with pytest.raises(TypeError):
        other.save_pretrained(tmp_path)
    del other.config.odd
    monkeypatch.setattr(text_files.os, "chmod", _refuse)
    with pytest.raises(errors.NoSpaceLeft, match=r"config\.json"):
        other.save_pretrained(tmp_path)
    assert files(tmp_path) == ["config.json", "model.safetensors"]
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), model.state_dict())


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_durable_save_syncs_the_configuration_and_new_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(text_files.os, "fsync", fsync)
    new_model().save_pretrained(tmp_path / "a" / "b", durable=True)
    assert synced[:2] == ["a", tmp_path.name]
    assert synced[2].startswith("config.json.windlass-")
    assert synced[3:] == ["b"]
    synced.clear()
    new_model().save_pretrained(tmp_path / "a" / "b")
    assert synced == []


def test_leftovers_of_a_killed_save_are_swept(tmp_path: Path) -> None:
    saved(tmp_path)
    with text_files.staged_files({str(tmp_path / "config.json"): b"{}"}):
        (held,) = [name for name in files(tmp_path) if ".windlass-" in name]
        windlass.recover(tmp_path)
        assert held in files(tmp_path)
    (tmp_path / held).write_text("{")
    saved(tmp_path)
    assert files(tmp_path) == ["config.json", "model.safetensors"]


def test_parts_of_the_configuration_forget_their_chosen_attention(tmp_path: Path) -> None:
    model = new_model()
    model.config.part = MODELS.TinyConfig()
    model.config._attn_implementation_autoset = True
    model.config.part._attn_implementation_autoset = True
    model.save_pretrained(tmp_path)
    assert '_attn_implementation_autoset": true' not in (tmp_path / "config.json").read_text()
    assert model.config.part._attn_implementation_autoset


def test_configuration_may_write_files_of_its_own(tmp_path: Path) -> None:
    class Config(MODELS.TinyConfig):  # type: ignore[name-defined, misc]
        def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
            super().save_pretrained(save_directory, *args, **kwargs)
            os.makedirs(os.path.join(save_directory, "more"))
            with open(os.path.join(save_directory, "more", "notes.txt"), "w") as file:
                file.write("mine")

    Labels(Config()).save_pretrained(tmp_path)
    assert (tmp_path / "more" / "notes.txt").read_text() == "mine"


def test_wrapped_model_is_saved_unwrapped(tmp_path: Path) -> None:
    model = new_model()
    wrapped = torch.nn.DataParallel(model)
    assert wrapped.module is model
    Labels.save_pretrained(wrapped, tmp_path)
    assert_same_state(Labels.from_pretrained(tmp_path).state_dict(), model.state_dict())
