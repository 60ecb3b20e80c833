"""Who reads while somebody saves gets the old checkpoint or the new one, or a clear error."""

from __future__ import annotations

import os
import pkgutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
import windlass.torch.load_sharded
from builders.bits import fingerprint
from builders.loaders import NEW, OLD, SIGNS, which
from builders.saver import Checkpoint
from windlass.errors import CheckpointNotFound, FileChanged, ShardNotFound
from windlass.layout import CheckpointFile
from windlass.opening import MOST_TRIES, open_found
from windlass.torch import pickles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builders.loaders import Loaders
    from builders.saver import Saver

LOADS = 2000 if os.environ.get("WINDLASS_TEST_PROFILE") == "long" else 200
READERS = 2
PATIENCE = 300.0  # Seconds.
ONE_FILE, TWO_SHARDS, FIVE_SHARDS = "1GB", "8KB", "4KB"
ALTERNATIVES = {
    "same names": (Checkpoint(SIGNS[OLD], FIVE_SHARDS), Checkpoint(SIGNS[NEW], FIVE_SHARDS)),
    "single and sharded": (Checkpoint(SIGNS[OLD], ONE_FILE), Checkpoint(SIGNS[NEW], FIVE_SHARDS)),
    "fewer and more": (Checkpoint(SIGNS[OLD], TWO_SHARDS), Checkpoint(SIGNS[NEW], FIVE_SHARDS)),
    "pickles of same names": (
        Checkpoint(SIGNS[OLD], FIVE_SHARDS, safetensors=False),
        Checkpoint(SIGNS[NEW], FIVE_SHARDS, safetensors=False),
    ),
}
TRANSITIONS = {
    "single to sharded": (Checkpoint(SIGNS[OLD], ONE_FILE), Checkpoint(SIGNS[NEW], FIVE_SHARDS)),
    "sharded to single": (Checkpoint(SIGNS[OLD], FIVE_SHARDS), Checkpoint(SIGNS[NEW], ONE_FILE)),
    "fewer shards": (Checkpoint(SIGNS[OLD], FIVE_SHARDS), Checkpoint(SIGNS[NEW], TWO_SHARDS)),
    "same names": ALTERNATIVES["same names"],
}
#: What finds the file, and what opens it then.
OPENERS: dict[str, tuple[str, Callable[[Path, torch.nn.Module], object]]] = {
    "Checkpoint": (
        "windlass.checkpoint.find_safetensors",
        lambda folder, _: windlass.Checkpoint(folder),
    ),
    "load_sharded_checkpoint": (
        "windlass.torch.load_sharded.find_checkpoint",
        lambda folder, model: windlass.load_sharded_checkpoint(model, folder),
    ),
    "load_torch_model": (
        "windlass.torch.load_saved.find_by_pattern",
        lambda folder, model: windlass.load_torch_model(model, folder, strict=True),
    ),
}


def _save_after(finder: str, save: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    find = pkgutil.resolve_name(finder)

    def find_then_save(*arguments: Any, **options: Any) -> CheckpointFile:
        found: CheckpointFile = find(*arguments, **options)
        save()
        return found

    monkeypatch.setattr(finder, find_then_save)


def _load_all_the_time(model: torch.nn.Module, folder: Path) -> Counter[str]:
    """Load often, and until both checkpoints were met: the saver may have to wait for a core."""
    found: Counter[str] = Counter()
    deadline = time.monotonic() + PATIENCE
    while found.total() < LOADS // READERS or not {OLD, NEW} <= found.keys():
        if time.monotonic() > deadline:
            break
        try:
            if found.total() % 2:
                windlass.load_sharded_checkpoint(model, folder)
            else:
                windlass.load_torch_model(model, folder, strict=True, safe=False)
            found[which(model)] += 1
        except FileChanged:
            found["FileChanged"] += 1
    return found


@pytest.mark.parametrize("kind", ALTERNATIVES)
def test_readers_find_old_or_new_or_notice(
    kind: str, tmp_path: Path, saver: Saver, loaders: Loaders
) -> None:
    saver.save(tmp_path, ALTERNATIVES[kind][0])
    models = [loaders.new_model() for _ in range(READERS)]
    with (
        saver.saving_in_turn(tmp_path, *ALTERNATIVES[kind]),
        ThreadPoolExecutor(READERS) as readers,
    ):
        counts = list(readers.map(lambda model: _load_all_the_time(model, tmp_path), models))
    found = sum(counts, Counter())
    assert {OLD, NEW} <= found.keys() <= {OLD, NEW, "FileChanged"}


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_a_save_between_opening_and_reading_is_noticed(
    transition: str,
    tmp_path: Path,
    saver: Saver,
    loaders: Loaders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = TRANSITIONS[transition]
    saver.save(tmp_path, old)
    model = loaders.new_model()
    before = fingerprint(model)
    plan_load = windlass.torch.load_sharded.plan_load

    def save_then_plan(*arguments: Any, **options: Any) -> Any:
        saver.save(tmp_path, new)
        return plan_load(*arguments, **options)

    monkeypatch.setattr(windlass.torch.load_sharded, "plan_load", save_then_plan)
    with pytest.raises(FileChanged):
        windlass.load_sharded_checkpoint(model, tmp_path)
    assert fingerprint(model) == before


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("name", OPENERS)
def test_what_a_save_took_away_before_it_was_opened_is_found_again(  # noqa: PLR0917
    name: str,
    transition: str,
    tmp_path: Path,
    saver: Saver,
    loaders: Loaders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = TRANSITIONS[transition]
    saver.save(tmp_path, old)
    finder, open_folder = OPENERS[name]
    _save_after(finder, lambda: saver.save(tmp_path, new), monkeypatch)
    open_folder(tmp_path, loaders.new_model())


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_verify_takes_no_save_for_damage(
    transition: str, tmp_path: Path, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = TRANSITIONS[transition]
    saver.save(tmp_path, old)
    finder = "windlass.verification.find_safetensors"
    _save_after(finder, lambda: saver.save(tmp_path, new), monkeypatch)
    assert windlass.verify(tmp_path) == []


def _index(path: str) -> CheckpointFile:
    return CheckpointFile(path, is_index=True, is_safetensors=True)


def test_finding_nothing_is_looked_into_again() -> None:
    found = iter([CheckpointNotFound("between two looks"), _index("there")])

    def find() -> CheckpointFile:
        answer = next(found)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert open_found(find, lambda file: file.path) == "there"


def test_an_empty_folder_is_not_looked_into_for_ever() -> None:
    looks = []

    def find() -> CheckpointFile:
        looks.append(1)
        raise CheckpointNotFound("nothing there")

    with pytest.raises(CheckpointNotFound):
        open_found(find, lambda file: file)
    assert len(looks) == MOST_TRIES


def test_a_file_that_was_away_and_is_another_now_is_opened(tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index.touch()
    other = tmp_path / "other.json"
    other.touch()

    def open_file(file: CheckpointFile) -> str:
        if other.exists():
            other.replace(index)
            raise ShardNotFound("the index")
        return file.path

    assert open_found(lambda: _index(str(index)), open_file) == str(index)


def test_a_missing_shard_is_looked_for_once(tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index.touch()
    looks = []

    def open_file(file: CheckpointFile) -> None:
        looks.append(file)
        raise ShardNotFound("a shard")

    with pytest.raises(ShardNotFound):
        open_found(lambda: _index(str(index)), open_file)
    assert len(looks) == 1


def test_a_pickle_index_that_is_written_to_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a writer that neither makes a new file nor changes the size."""
    index = tmp_path / "pytorch_model.bin.index.json"
    for name, value in (("a", 1.0), ("b", 2.0)):
        torch.save({"w": torch.full((2,), value)}, tmp_path / f"{name}.bin")
    index.write_text('{"weight_map": {"w": "a.bin"}}')
    load_pickle = pickles.load_pickle

    def load_then_write(*arguments: Any, **options: Any) -> Any:
        loaded = load_pickle(*arguments, **options)
        if "b.bin" not in index.read_text():
            index.write_text('{"weight_map": {"w": "b.bin"}}')
            os.utime(index, ns=(0, index.stat().st_mtime_ns + 1))
        return loaded

    monkeypatch.setattr(pickles, "load_pickle", load_then_write)
    model = torch.nn.Module()
    model.register_buffer("w", torch.zeros(2))
    windlass.load_sharded_checkpoint(model, tmp_path)
    assert model.w.tolist() == [2.0, 2.0]


def test_a_pickle_index_that_is_replaced_meanwhile_is_read_again(
    tmp_path: Path, saver: Saver, loaders: Loaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = ALTERNATIVES["pickles of same names"]
    saver.save(tmp_path, old)
    load_pickle = pickles.load_pickle
    saves = iter([new])

    def load_then_save(*arguments: Any, **options: Any) -> Any:
        loaded = load_pickle(*arguments, **options)
        for checkpoint in saves:
            saver.save(tmp_path, checkpoint)
        return loaded

    monkeypatch.setattr(pickles, "load_pickle", load_then_save)
    model = loaders.new_model()
    windlass.load_sharded_checkpoint(model, tmp_path)
    assert which(model) == NEW
