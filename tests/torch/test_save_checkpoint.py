"""`save_torch_state_dict`: the files of the hub, in a folder where nothing else changes."""

from __future__ import annotations

import inspect
import json
import os
import resource
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import torch
import windlass
import windlass.torch
from builders.bits import random_tensor
from builders.saves import (
    APART,
    CASTS,
    FEW,
    file_names,
    folder_bytes,
    hard_dicts,
    holds,
    load_folder,
    metadata_of,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

State = dict[str, torch.Tensor]
INDEX = "model.safetensors.index.json"
#: What a save of `model{suffix}.safetensors` must not touch.
FOREIGN = (
    "adapter_model.safetensors",
    "model.fp16.safetensors",
    "model.fp16-00001-of-00002.safetensors",
    "model.fp16.safetensors.index.json",
    "model_extra-00001-of-00002.safetensors",
    "modelX-12345-of-12345.safetensors",
    "model-00001-of-00002.safetensors.bak",
    "model-00001-of-00002.bin",
    "model-1-of-2.safetensors",
    "model",
    "model.safetensors.backup",
    "consolidated-00001-of-00002.safetensors",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "optimizer.pt",
    "config.json",
    ".gitattributes",
    "sub/model-00001-of-00002.safetensors",
    "model-00009-of-00009.safetensors.d/mine",
)


def _state(value: float = 1.0) -> State:
    return {f"layer.{n}": torch.full((3 + n,), value) for n in range(4)}


@given(hard_dicts(kinds=APART).filter(bool), st.sampled_from([0, 30, "0.1KB", "5GB"]))
@FEW
def test_files_and_index_are_those_of_the_hub(state: State, size: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        theirs.mkdir()
        windlass.save_torch_state_dict(state, ours, max_shard_size=size)
        huggingface_hub.save_torch_state_dict(dict(state), theirs, max_shard_size=size)
        one, two = folder_bytes(ours), folder_bytes(theirs)
        assert one.keys() == two.keys()
        indexes = [json.loads(files.pop(INDEX, b"{}")) for files in (one, two)]
        if indexes[0]:
            parameters = indexes[0]["metadata"].pop("total_parameters")
            assert parameters == sum(tensor.numel() for tensor in state.values())
        assert indexes[0] == indexes[1]
        assert one == two


@given(
    st.lists(st.tuples(hard_dicts(), st.sampled_from([0, 40, 10**9])), min_size=1, max_size=4),
    st.sampled_from([None, *CASTS]),
)
@FEW
def test_each_save_replaces_the_one_before(saves: list[tuple[State, int]], dtype: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for state, size in saves:
            windlass.save_torch_state_dict(state, folder, max_shard_size=size, dtype=dtype)
            files = file_names(folder)
            if INDEX in files:
                listed = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
                assert {*files} == {INDEX, *listed}
            else:
                assert files == ["model.safetensors"]
            stored = load_folder(folder)
            assert holds(stored, {name: state[name] for name in stored}, dtype)
            assert stored.keys() | _dropped(folder) >= state.keys()


def _dropped(folder: Path) -> set[str]:
    path = folder / INDEX
    return set(metadata_of(path if path.exists() else folder / "model.safetensors"))


def test_tensors_without_elements_are_where_the_hub_puts_them(tmp_path: Path) -> None:
    """All in one shard: to the hub they share the storage that is none."""
    state = {"a": torch.empty(0), "b": torch.ones(5), "c": torch.ones(5), "d": torch.empty(0, 2)}
    windlass.save_torch_state_dict(state, tmp_path / "ours", max_shard_size=30)
    (tmp_path / "theirs").mkdir()
    huggingface_hub.save_torch_state_dict(dict(state), tmp_path / "theirs", max_shard_size=30)
    ours, theirs = (
        json.loads((tmp_path / name / INDEX).read_text()) for name in ("ours", "theirs")
    )
    assert ours["weight_map"] == theirs["weight_map"]


@pytest.mark.parametrize("size", [16, "5GB"])
@pytest.mark.parametrize("old_size", [16, "5GB"])
def test_files_of_others_are_not_touched(tmp_path: Path, old_size: Any, size: Any) -> None:
    for name in FOREIGN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    windlass.save_torch_state_dict(_state(1.0), tmp_path, max_shard_size=old_size)
    windlass.save_torch_state_dict(_state(2.0), tmp_path, max_shard_size=size)
    assert all((tmp_path / name).read_text() == name for name in FOREIGN)
    assert holds(load_folder(tmp_path), _state(2.0))


@pytest.mark.parametrize("size", [16, "5GB"])
def test_pickles_replace_pickles_only(tmp_path: Path, size: Any) -> None:
    windlass.save_torch_state_dict(_state(1.0), tmp_path, max_shard_size=16)
    before = folder_bytes(tmp_path)
    options: dict[str, Any] = {"safe_serialization": False}
    windlass.save_torch_state_dict(_state(2.0), tmp_path, max_shard_size=20, **options)
    windlass.save_torch_state_dict(_state(3.0), tmp_path, max_shard_size=size, **options)
    after = folder_bytes(tmp_path)
    assert {name: after[name] for name in before} == before
    pickles = {name: torch.load(tmp_path / name) for name in after if name.endswith(".bin")}
    merged = {name: tensor for one in pickles.values() for name, tensor in one.items()}
    assert holds(merged, _state(3.0))
    model = _Flat(_state(0.0))
    windlass.load_torch_model(
        model, tmp_path, safe=False, strict=True, filename_pattern="pytorch_model{suffix}.bin"
    )
    assert holds(model.tensors(), _state(3.0))


class _Flat(torch.nn.Module):
    """A module with buffers of any name."""

    def __init__(self, state: State) -> None:
        super().__init__()
        for name, tensor in state.items():
            module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, tensor.clone())

    def tensors(self) -> State:
        return dict(self.state_dict())


@pytest.mark.parametrize("size", [0, 24, "5GB"])
def test_pickles_are_split_as_the_hub_splits_them(tmp_path: Path, size: Any) -> None:
    weight = torch.ones(6)
    state = {"a": weight, "b": weight[:2], "c": torch.ones(4), "d": torch.ones(1)}
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    theirs.mkdir()
    for save, folder in (
        (windlass.save_torch_state_dict, ours),
        (huggingface_hub.save_torch_state_dict, theirs),
    ):
        save(state, folder, max_shard_size=size, safe_serialization=False)
    assert file_names(ours) == file_names(theirs)
    index = "pytorch_model.bin.index.json"
    if (ours / index).exists():
        assert json.loads((ours / index).read_text()) == json.loads((theirs / index).read_text())


def test_size_of_a_shard_counts_what_is_written(tmp_path: Path) -> None:
    """Casts and views count as they are stored, not by the storage behind them."""
    state = {"view": torch.ones(1000)[:4], "cast": torch.ones(8), "whole": torch.ones(4).int()}
    windlass.save_torch_state_dict(state, tmp_path, max_shard_size=32, dtype=torch.float16)
    assert metadata_of(tmp_path / INDEX)["total_size"] == 8 + 16 + 16
    assert len(file_names(tmp_path)) == 3


def test_nothing_is_a_checkpoint_too(tmp_path: Path) -> None:
    windlass.save_torch_state_dict(_state(), tmp_path, max_shard_size=16)
    windlass.save_torch_state_dict({}, tmp_path)
    assert file_names(tmp_path) == ["model.safetensors"]
    assert load_folder(tmp_path) == {}


@pytest.mark.parametrize("pattern", ["diffusion{suffix}.safetensors", "model{suffix}.fp16.sft"])
def test_pattern_names_the_files(tmp_path: Path, pattern: str) -> None:
    windlass.save_torch_state_dict(_state(0.0), tmp_path)
    windlass.save_torch_state_dict(_state(), tmp_path, filename_pattern=pattern, max_shard_size=20)
    count = len(file_names(tmp_path)) - 2
    shards = [pattern.format(suffix=f"-{n:05d}-of-{count:05d}") for n in range(1, count + 1)]
    index = pattern.format(suffix="") + ".index.json"
    assert file_names(tmp_path) == sorted([*shards, index, "model.safetensors"])
    model = _Flat(_state(5.0))
    windlass.load_torch_model(model, tmp_path, strict=True, filename_pattern=pattern)
    assert holds(model.tensors(), _state())


@pytest.mark.parametrize("pattern", ["model.safetensors", "a/b{suffix}", "../m{suffix}", "{x}"])
def test_pattern_that_names_no_files_of_the_folder_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="filename_pattern"):
        windlass.save_torch_state_dict(_state(), tmp_path / "new", filename_pattern=pattern)
    assert file_names(tmp_path) == []


def test_metadata_is_in_the_file_or_in_the_index(tmp_path: Path) -> None:
    windlass.save_torch_state_dict(_state(), tmp_path / "one", metadata={"by": "us"})
    assert metadata_of(tmp_path / "one" / "model.safetensors") == {"format": "pt", "by": "us"}
    windlass.save_torch_state_dict(
        _state(), tmp_path / "two", metadata={"by": "us"}, max_shard_size=20
    )
    assert metadata_of(tmp_path / "two" / INDEX)["by"] == "us"


def test_other_processes_write_nothing_but_check(tmp_path: Path) -> None:
    windlass.save_torch_state_dict(_state(), tmp_path / "new", is_main_process=False)
    with pytest.raises(ValueError, match="bad"):
        windlass.save_torch_state_dict({"bad": 3}, tmp_path / "new", is_main_process=False)  # type: ignore[dict-item]
    assert file_names(tmp_path) == []


def test_folders_are_made(tmp_path: Path) -> None:
    windlass.save_torch_state_dict(_state(), tmp_path / "a" / "b")
    assert holds(load_folder(tmp_path / "a" / "b"), _state())


def test_linked_folder_is_saved_into(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    windlass.save_torch_state_dict(_state(), tmp_path / "link", max_shard_size=20)
    assert (tmp_path / "link").is_symlink()
    assert holds(load_folder(tmp_path / "real"), _state())


@pytest.mark.parametrize("size", [20, "5GB"])
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_linked_files_are_replaced_not_written_through(
    tmp_path: Path, link: str, size: Any
) -> None:
    """As in the cache of the hub, where files of a snapshot are links to blobs."""
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    windlass.save_torch_state_dict(_state(0.0), blobs, max_shard_size=20)
    folder.mkdir()
    for path in blobs.iterdir():
        getattr(folder / path.name, link)(path)
    before = folder_bytes(blobs)
    windlass.save_torch_state_dict(_state(), folder, max_shard_size=size)
    assert holds(load_folder(folder), _state())
    assert folder_bytes(blobs) == before
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Take permissions from new files."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize("size", [20, "5GB"])
@pytest.mark.parametrize("mode", [0o644, 0o664, 0o600])
def test_new_weights_have_the_mode_of_the_old(
    tmp_path: Path, size: Any, mode: int, umask: int
) -> None:
    windlass.save_torch_state_dict(_state(), tmp_path, max_shard_size=20)
    assert _modes(tmp_path) == {0o666 & ~umask}
    for path in tmp_path.iterdir():
        path.chmod(mode)
    windlass.save_torch_state_dict(_state(), tmp_path, max_shard_size=size)
    assert _modes(tmp_path) == {mode}


@pytest.mark.parametrize("size", [20, 10**9, "0.05KB"])
def test_checkpoint_is_saved_over_the_files_it_is_mapped_from(tmp_path: Path, size: Any) -> None:
    state = {str(n): random_tensor((n, 3), torch.float32, n) for n in range(5)}
    windlass.save_torch_state_dict(state, tmp_path, max_shard_size=50)
    mapped = load_folder(tmp_path)
    windlass.save_torch_state_dict(mapped, tmp_path, max_shard_size=size)
    assert holds(load_folder(tmp_path), state)


@pytest.mark.parametrize("options", [{"durable": True}, {"threads": 1}, {"progress": False}])
@pytest.mark.parametrize("size", [20, "5GB"])
def test_options_do_not_change_the_bytes(tmp_path: Path, options: Any, size: Any) -> None:
    state = {**_state(), "t": torch.ones(2, 3).t()}
    windlass.save_torch_state_dict(state, tmp_path / "one", max_shard_size=size)
    windlass.save_torch_state_dict(state, tmp_path / "two", max_shard_size=size, **options)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_progress_counts_the_bytes_of_all_shards(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    windlass.save_torch_state_dict(
        {**_state(), "t": torch.ones(2, 3).t()},
        tmp_path,
        max_shard_size=20,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (96, 96)


@pytest.mark.parametrize("size", [40, "5GB"])
def test_progress_of_pickles_counts_storages_once(tmp_path: Path, size: Any) -> None:
    calls: list[tuple[int, int]] = []
    weight = torch.arange(8.0)
    windlass.save_torch_state_dict(
        {"a": weight, "b": weight, "part": weight[2:], "c": torch.ones(4)},
        tmp_path,
        max_shard_size=size,
        safe_serialization=False,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == sorted(calls)
    assert calls[-1] == (48, 48)


def test_threads_that_save_into_one_folder_leave_one_whole_checkpoint(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def save(number: int) -> None:
        try:
            for size in (16, 10**6, 24):
                windlass.save_torch_state_dict(
                    _state(float(number)), tmp_path, max_shard_size=size + number
                )
        except BaseException as error:  # noqa: BLE001 shown by the test
            errors.append(error)

    threads = [threading.Thread(target=save, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    stored = load_folder(tmp_path)
    assert holds(stored, _state(float(stored["layer.0"][0])))
    listed = set(json.loads((tmp_path / INDEX).read_text())["weight_map"].values())
    assert {*file_names(tmp_path)} == {INDEX, *listed}


@pytest.mark.parametrize("name", ["save_torch_state_dict", "save_torch_model", "load_torch_model"])
def test_signature_has_all_of_the_hub(name: str) -> None:
    ours = inspect.signature(getattr(windlass, name)).parameters
    theirs = inspect.signature(getattr(huggingface_hub, name)).parameters
    shared = {one: (ours[one].default, ours[one].kind) for one in theirs}
    assert shared == {one: (theirs[one].default, theirs[one].kind) for one in theirs}
    assert list(ours)[:2] == list(theirs)[:2]


def test_model_is_saved_by_its_state_dict(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    windlass.save_torch_model(model, tmp_path / "model", max_shard_size=40)
    windlass.save_torch_state_dict(model.state_dict(), tmp_path / "state", max_shard_size=40)
    assert folder_bytes(tmp_path / "model") == folder_bytes(tmp_path / "state")


@pytest.mark.parametrize("save", [windlass.save_torch_model, windlass.save_model])
def test_what_is_no_model_is_refused(tmp_path: Path, save: Any) -> None:
    with pytest.raises(TypeError, match="dict"):
        save({}, tmp_path / "new")


def test_new_index_may_be_read_by_whoever_could_read_the_old_file(tmp_path: Path) -> None:
    state = {f"{i}": torch.zeros(4) for i in range(3)}
    windlass.save_torch_state_dict(state, tmp_path)
    (tmp_path / "model.safetensors").chmod(0o644)
    old = os.umask(0o077)
    try:
        windlass.save_torch_state_dict(state, tmp_path, max_shard_size=16)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o644}, modes


def test_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    state = {f"{i:04}": torch.full((2,), float(i)) for i in range(600)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        windlass.save_torch_state_dict(state, tmp_path, max_shard_size=8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list(tmp_path.glob("*.safetensors"))) == 600
    assert windlass.Checkpoint(tmp_path).keys() == state.keys()
