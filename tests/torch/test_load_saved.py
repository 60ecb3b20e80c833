"""What was saved is loaded: every name gets its value, here and by the references."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
import windlass
import windlass.arrays
import windlass.numpy
import windlass.torch
from builders.bits import contents, fingerprint
from builders.models import ModelPlan, build_model, model_plans
from builders.saves import FEW, file_names, holds, load_folder
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from windlass import verification
from windlass.errors import (
    CheckpointNotFound,
    ChecksumMismatch,
    FileChanged,
    IncompatibleKeys,
    InvalidHeader,
    InvalidPickle,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Tied(nn.Module):
    """Two layers of one weight, and a third that is its own."""

    def __init__(self, value: float = 0.0, *, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 3, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        self.other = nn.Linear(3, 2)
        if tied:
            self.head.weight = self.embed.weight
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.fill_(value + number)


def _same_state(one: nn.Module, other: nn.Module) -> bool:
    return holds(one.state_dict(), other.state_dict())


SIZES = (40, "5GB")
#: Ways to save a model into a folder.
SAVES: dict[str, Callable[[nn.Module, Path], object]] = {
    "ours, one file": windlass.save_torch_model,
    "ours, shards": lambda model, folder: windlass.save_torch_model(
        model, folder, max_shard_size=40
    ),
    "hub, one file": huggingface_hub.save_torch_model,
    "hub, shards": lambda model, folder: huggingface_hub.save_torch_model(
        model, folder, max_shard_size=40
    ),
    "ours, model": lambda model, folder: windlass.save_model(model, folder / "model.safetensors"),
    "safetensors, model": lambda model, folder: safetensors.torch.save_model(
        model, str(folder / "model.safetensors")
    ),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("way", SAVES)
def test_every_name_gets_its_value_also_where_it_is_not_tied(
    tmp_path: Path,
    way: str,
    tied: bool,  # noqa: FBT001
) -> None:
    source, model = Tied(1.0), Tied(7.0, tied=tied)
    SAVES[way](source, tmp_path)
    result = windlass.load_torch_model(model, tmp_path, strict=True)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert _same_state(model, source)
    assert (model.head.weight is model.embed.weight) == tied


@pytest.mark.parametrize("way", ["ours, one file", "ours, shards"])
def test_hub_loads_what_was_saved(tmp_path: Path, way: str) -> None:
    source, model = Tied(1.0), Tied(7.0)
    SAVES[way](source, tmp_path)
    huggingface_hub.load_torch_model(model, tmp_path)
    assert _same_state(model, source)


@pytest.mark.parametrize("way", [way for way in SAVES if "shards" not in way])
def test_one_file_is_loaded_as_safetensors_loads_it(tmp_path: Path, way: str) -> None:
    source, ours, theirs = Tied(1.0), Tied(7.0), Tied(8.0)
    SAVES[way](source, tmp_path)
    path = tmp_path / "model.safetensors"
    missing, unexpected = safetensors.torch.load_model(theirs, path)
    assert windlass.load_model(ours, path) == (list(missing), list(unexpected)) == ([], [])
    assert _same_state(ours, theirs)
    assert _same_state(ours, source)


@pytest.mark.parametrize("way", SAVES)
def test_all_other_loaders_read_it(tmp_path: Path, way: str) -> None:
    source, model = Tied(1.0), Tied(7.0)
    SAVES[way](source, tmp_path)
    assert windlass.load_sharded_checkpoint(model, tmp_path) == ([], [])
    assert _same_state(model, source)
    stored = load_folder(tmp_path)
    assert set(windlass.Checkpoint(tmp_path)) == stored.keys()
    assert holds(stored, {name: source.state_dict()[name] for name in stored})


@given(model_plans(), st.sampled_from(SIZES))
@FEW
def test_generated_model_comes_back_bit_by_bit(plan: ModelPlan, size: Any) -> None:
    """With ties, views and overlaps; each name has its value, whatever was stored."""
    source, model = build_model(plan, 1), build_model(plan, 2)
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_torch_model(source, folder, max_shard_size=size)
        windlass.load_torch_model(model, folder, strict=True)
    assert holds(model.state_dict(), source.state_dict())


@given(model_plans())
@FEW
def test_generated_model_comes_back_from_one_file(plan: ModelPlan) -> None:
    source, model = build_model(plan, 1), build_model(plan, 2)
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_model(source, Path(folder, "a"))
        assert windlass.load_model(model, Path(folder, "a")) == ([], [])
    assert holds(model.state_dict(), source.state_dict())


@pytest.mark.parametrize("keep", ["first", ["head.weight"], "hub"])
@pytest.mark.parametrize("tied", [True, False])
def test_rule_that_chose_the_name_does_not_matter(
    tmp_path: Path,
    keep: Any,
    tied: bool,  # noqa: FBT001
) -> None:
    source, model = Tied(1.0), Tied(7.0, tied=tied)
    windlass.save_model(source, tmp_path / "a", keep=keep)
    assert windlass.load_model(model, tmp_path / "a") == ([], [])
    assert _same_state(model, source)


@pytest.mark.parametrize("resize", [(0, 10**9), (10**9, 40), (40, 41), (40, 0)])
def test_checkpoint_is_saved_again_with_other_shards(
    tmp_path: Path, resize: tuple[int, int]
) -> None:
    source, model = Tied(1.0), Tied(7.0)
    for size in resize:
        windlass.save_torch_model(source, tmp_path, max_shard_size=size)
        source = model
        windlass.load_torch_model(model, tmp_path, strict=True)
    assert _same_state(model, Tied(1.0))


def _other() -> nn.Module:
    model = Tied()
    model.extra = nn.Linear(1, 1, bias=False)
    del model.other
    return model


def test_missing_and_unexpected_names_are_those_of_safetensors(tmp_path: Path) -> None:
    windlass.save_model(Tied(), tmp_path / "a")
    ours = windlass.load_model(_other(), tmp_path / "a", strict=False)
    theirs = safetensors.torch.load_model(_other(), tmp_path / "a", strict=False)
    assert tuple(map(sorted, ours)) == tuple(map(sorted, theirs))
    assert ours == (["extra.weight"], ["other.bias", "other.weight"])


@pytest.mark.parametrize("load", [windlass.load_model, windlass.load_torch_model])
def test_strict_load_refuses_and_leaves_the_model_alone(tmp_path: Path, load: Any) -> None:
    windlass.save_model(Tied(), tmp_path / "a")
    model = _other()
    before = fingerprint(model)
    with pytest.raises(IncompatibleKeys, match=r"extra\.weight"):
        load(model, tmp_path / "a", strict=True)
    assert fingerprint(model) == before


def test_hub_function_is_not_strict_by_default(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(), tmp_path)
    result = windlass.load_torch_model(_other(), tmp_path)
    assert result.missing_keys == ["extra.weight"]
    assert result.unexpected_keys == ["other.bias", "other.weight"]


def test_metadata_that_happens_to_name_tensors_changes_nothing_stored(tmp_path: Path) -> None:
    state = {"a": torch.ones(2), "b": torch.zeros(2)}
    windlass.save_file(state, tmp_path / "a", {"b": "a", "c": "nobody", "format": "pt"})
    assert holds(windlass.load_state_dict_from_file(tmp_path / "a"), state)


def test_dropped_names_are_the_same_tensor_in_a_state_dict(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path)
    state = windlass.load_state_dict_from_file(tmp_path / "model.safetensors")
    assert state["head.weight"] is state["embed.weight"]
    assert holds(state, Tied(1.0).state_dict())


@pytest.mark.parametrize("map_location", [None, "cpu", torch.device("cpu")])
def test_state_dict_is_that_of_the_hub(tmp_path: Path, map_location: Any) -> None:
    state = {"a": torch.ones(2), "b": torch.arange(6).reshape(2, 3)}
    windlass.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.bin")
    for name, safe in (("a.safetensors", True), ("a.safetensors", False), ("a.bin", False)):
        path = tmp_path / name
        ours = windlass.load_state_dict_from_file(path, map_location, safe=safe)
        theirs = huggingface_hub.load_state_dict_from_file(path, map_location, safe=safe)
        assert holds(ours, theirs)


@pytest.mark.parametrize("map_location", ["meta", torch.device("meta")])
def test_meta_device_means_the_cpu_and_is_logged_once(
    tmp_path: Path, map_location: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"a": torch.ones(2)}
    windlass.save_file(state, tmp_path / "a.safetensors", {"format": "pt"})
    found = windlass.load_state_dict_from_file(tmp_path / "a.safetensors", map_location)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert holds(found, state)
    theirs = huggingface_hub.load_state_dict_from_file(tmp_path / "a.safetensors", map_location)
    assert holds(found, theirs)


def test_unknown_device_is_refused(tmp_path: Path) -> None:
    windlass.save_file({"a": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(ValueError, match="warp"):
        windlass.load_state_dict_from_file(tmp_path / "a", "warp")


def test_state_dict_is_of_one_file_also_when_it_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save after the tensors were found, and before their metadata is looked at."""
    old, new = Tied(1.0), {"embed.weight": torch.zeros(1), "by": torch.zeros(2)}
    windlass.save_torch_model(old, tmp_path)
    path = tmp_path / "model.safetensors"
    get_all = windlass.arrays.ArrayFile.get_all

    def save_meanwhile(file: Any, *how: Any) -> Any:
        found = get_all(file, *how)
        windlass.save_file(new, path, {"head.weight": "by"})
        return found

    monkeypatch.setattr(windlass.arrays.ArrayFile, "get_all", save_meanwhile)
    state = windlass.load_state_dict_from_file(path)
    assert holds(state, old.state_dict())


@pytest.mark.parametrize("size", SIZES)
def test_pickles_are_loaded_by_both(tmp_path: Path, size: Any) -> None:
    source = Tied(1.0)
    windlass.save_torch_model(source, tmp_path, max_shard_size=size, safe_serialization=False)
    for load in (windlass.load_torch_model, huggingface_hub.load_torch_model):
        model = Tied(7.0)
        load(model, tmp_path, safe=False, strict=True)
        assert _same_state(model, source)


@pytest.mark.parametrize("path", [".", "pytorch_model.bin"])
def test_pickle_is_refused_unless_told_otherwise(tmp_path: Path, path: str) -> None:
    windlass.save_torch_model(Tied(), tmp_path, safe_serialization=False)
    model = Tied(7.0)
    before = fingerprint(model)
    with pytest.raises((InvalidPickle, CheckpointNotFound)) as caught:
        windlass.load_torch_model(model, tmp_path / path)
    assert isinstance(caught.value, ValueError)
    assert fingerprint(model) == before


def test_pickle_is_not_taken_for_a_state_dict_in_safetensors(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(), tmp_path, safe_serialization=False)
    with pytest.raises(InvalidHeader):
        windlass.load_state_dict_from_file(tmp_path / "pytorch_model.bin")


def test_code_of_a_pickle_is_not_run(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(), tmp_path, safe_serialization=False)
    with pytest.raises(InvalidPickle, match="weights_only"):
        windlass.load_torch_model(Tied(), tmp_path, safe=False, weights_only=False)


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path, safe_serialization=False)
    windlass.save_torch_model(Tied(2.0), tmp_path)
    model = Tied(7.0)
    windlass.load_torch_model(model, tmp_path, safe=False)
    assert _same_state(model, Tied(2.0))


@pytest.mark.parametrize("names", [[], ["a.safetensors", "b.safetensors"], ["notes.txt"]])
def test_folder_without_a_checkpoint_is_an_error(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        windlass.save_file({"w": torch.ones(1)}, tmp_path / name)
    with pytest.raises(CheckpointNotFound, match=str(tmp_path)):
        windlass.load_torch_model(Tied(), tmp_path)
    assert file_names(tmp_path) == names


def test_only_weights_file_of_a_folder_is_taken_whatever_its_name(tmp_path: Path) -> None:
    windlass.save_model(Tied(1.0), tmp_path / "odd.safetensors")
    model = Tied(7.0)
    windlass.load_torch_model(model, tmp_path, strict=True)
    assert _same_state(model, Tied(1.0))


@pytest.mark.parametrize("name", ["none.safetensors", "folder"])
def test_state_dict_file_that_is_none_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointNotFound, match=name) as caught:
        windlass.load_state_dict_from_file(tmp_path / name)
    assert isinstance(caught.value, FileNotFoundError)


def _flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


LOADS: dict[str, Callable[..., object]] = {
    "model": lambda folder, **how: windlass.load_model(
        how.pop("model"), folder / "model.safetensors", **how
    ),
    "hub model": lambda folder, **how: windlass.load_torch_model(how.pop("model"), folder, **how),
    "state dict": lambda folder, **how: windlass.load_state_dict_from_file(
        folder / "model.safetensors", verify=how["verify"]
    ),
    "sharded": lambda folder, **how: windlass.load_sharded_checkpoint(
        how.pop("model"), folder, strict=False, **how
    ),
    "file": lambda folder, **how: windlass.load_file(
        folder / "model.safetensors", verify=how["verify"]
    ),
    "owned file": lambda folder, **how: windlass.load_file(
        folder / "model.safetensors", memory="owned", verify=how["verify"]
    ),
    "numpy": lambda folder, **how: windlass.numpy.load_file(
        folder / "model.safetensors", verify=how["verify"]
    ),
}


@pytest.mark.parametrize("way", LOADS)
def test_damage_is_refused_when_asked_to_verify(tmp_path: Path, way: str) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path, checksums=True)
    LOADS[way](tmp_path, model=Tied(), verify=True)
    _flip_last_byte(tmp_path / "model.safetensors")
    model = Tied(7.0)
    before = fingerprint(model)
    with pytest.raises(ChecksumMismatch, match=r"(?s)model\.safetensors.*tensor.*CRC-32C"):
        LOADS[way](tmp_path, model=model, verify=True)
    assert fingerprint(model) == before
    LOADS[way](tmp_path, model=model, verify=False)


@pytest.mark.parametrize("way", LOADS)
def test_nothing_to_verify_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path)
    LOADS[way](tmp_path, model=Tied(), verify=True)
    assert re.search(r"model\.safetensors.*no tensor has a checksum", caplog.text)
    caplog.clear()
    LOADS[way](tmp_path, model=Tied(), verify=False)
    assert not caplog.records


PICKLES: dict[str, Callable[[Path], object]] = {
    "sharded": lambda folder: windlass.load_sharded_checkpoint(Tied(), folder, verify=True),
    "hub model": lambda folder: windlass.load_torch_model(Tied(), folder, safe=False, verify=True),
    "state dict": lambda folder: windlass.load_state_dict_from_file(
        folder / "pytorch_model.bin", safe=False, verify=True
    ),
}


@pytest.mark.parametrize("way", PICKLES)
def test_pickles_cannot_be_verified(tmp_path: Path, way: str) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path, safe_serialization=False)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*pickles have no checksums"):
        PICKLES[way](tmp_path)


@pytest.mark.parametrize("way", ["model", "hub model", "sharded", "owned file"])
def test_file_that_is_replaced_after_it_was_verified_is_not_loaded(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path, checksums=True)
    original = verification.refuse_findings

    def refuse_findings(findings: list[verification.Finding]) -> None:
        original(findings)
        _flip_last_byte(tmp_path / "model.safetensors")

    monkeypatch.setattr(verification, "refuse_findings", refuse_findings)
    with pytest.raises(FileChanged, match=r"model\.safetensors"):
        LOADS[way](tmp_path, model=Tied(7.0), verify=True)


def test_damage_of_a_shard_is_refused_by_name(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path, checksums=True, max_shard_size=40)
    _flip_last_byte(tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ChecksumMismatch, match="model-00002-of-00002"):
        windlass.load_torch_model(Tied(), tmp_path, verify=True)


def test_loading_keeps_parameters_and_their_gradients_on(tmp_path: Path) -> None:
    windlass.save_torch_model(Tied(1.0), tmp_path)
    model = Tied(7.0, tied=False)
    parameters = dict(model.named_parameters())
    windlass.load_torch_model(model, tmp_path)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert contents(model).keys() == parameters.keys()
    assert all(parameter.requires_grad for parameter in parameters.values())
