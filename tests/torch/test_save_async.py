"""`save_async`: a copy is taken at once, the save goes on, and no error is lost."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.saves import (
    FEW,
    file_names,
    folder_bytes,
    hard_dicts,
    holds,
    load_folder,
    locked,
    stored_value,
)
from hypothesis import given
from hypothesis import strategies as st
from windlass.errors import SaveFailed, SnapshotTooLarge, UnsupportedTensor
from windlass.torch.save_pickles import copy_to_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = {"old": torch.arange(5.0)}
#: Longer than any save here; a hang is a failure.
PATIENCE = 60.0


def _state(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 4), value), "t": torch.full((2, 3), value).t()}


def _tied() -> dict[str, torch.Tensor]:
    weight = torch.arange(6.0)
    return {"a": weight, "b": weight, "part": weight[:2]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an old checkpoint."""
    windlass.save_torch_state_dict(OLD, tmp_path)
    return tmp_path


@given(hard_dicts(), st.sampled_from([None, torch.bfloat16]), st.sampled_from([40, "5GB"]))
@FEW
def test_files_are_those_of_a_save_in_the_foreground(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor], dtype: Any, size: Any
) -> None:
    root = tmp_path_factory.mktemp("pair")
    windlass.save_torch_state_dict(state, root / "one", dtype=dtype, max_shard_size=size)
    windlass.save_async(state, root / "two", dtype=dtype, max_shard_size=size).result()
    assert folder_bytes(root / "one") == folder_bytes(root / "two")


@pytest.mark.parametrize("safe", [True, False])
def test_tensors_may_change_after_the_call(folder: Path, safe: bool) -> None:  # noqa: FBT001
    state = _state(1.0)
    with locked(folder):
        handle = windlass.save_async(state, folder, safe_serialization=safe)
        for tensor in state.values():
            tensor.fill_(7.0)
        assert not handle.done()
    handle.result(PATIENCE)
    path = folder / ("model.safetensors" if safe else "pytorch_model.bin")
    load: Callable[..., Any] = windlass.load_file if safe else torch.load
    assert holds(load(path), {name: stored_value(t) for name, t in _state(1.0).items()})


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 300, 70_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_every_way_of_copying_leaves_the_originals(
    folder: Path, count: int, length: int, dtype: torch.dtype
) -> None:
    state = {f"{n}": torch.full((1, length), n % 2, dtype=dtype) for n in range(count)}
    wanted = {name: tensor.clone() for name, tensor in state.items()}
    with locked(folder):
        handle = windlass.save_async(state, folder)
        for tensor in state.values():
            tensor.fill_(7)
    handle.result(PATIENCE)
    assert holds(windlass.load_file(folder / "model.safetensors"), wanted)


def test_dict_may_change_after_the_call(folder: Path) -> None:
    state = _state(1.0)
    with locked(folder):
        handle = windlass.save_async(state, folder)
        state.clear()
    handle.result(PATIENCE)
    assert holds(windlass.load_file(folder / "model.safetensors"), _state(1.0))


def test_old_checkpoint_is_there_until_the_end(folder: Path) -> None:
    with locked(folder):
        handle = windlass.save_async(_state(1.0), folder)
        assert holds(windlass.load_file(folder / "model.safetensors"), OLD)
    handle.result(PATIENCE)
    assert handle.done()
    assert file_names(folder) == ["model.safetensors"]


def test_saves_into_one_folder_end_in_the_order_of_their_calls(folder: Path) -> None:
    with locked(folder):
        handles = [windlass.save_async(_state(float(n)), folder / "." / "") for n in range(6)]
    handles[-1].result(PATIENCE)
    assert all(handle.done() for handle in handles)
    assert holds(windlass.load_file(folder / "model.safetensors"), _state(5.0))


def test_save_goes_on_without_its_handle(folder: Path) -> None:
    with locked(folder):
        windlass.save_async(_state(1.0), folder)
        gc.collect()
    windlass.save_async(_state(2.0), folder).result(PATIENCE)
    assert holds(windlass.load_file(folder / "model.safetensors"), _state(2.0))


def test_saves_into_two_folders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with locked(tmp_path / "one"):
        waits = windlass.save_async(_state(1.0), tmp_path / "one")
        windlass.save_async(_state(2.0), tmp_path / "two").result(PATIENCE)
        assert not waits.done()
    waits.result(PATIENCE)


def test_result_can_be_waited_for_with_a_limit(folder: Path) -> None:
    with locked(folder):
        handle = windlass.save_async(_state(1.0), folder)
        with pytest.raises(TimeoutError, match=str(folder)):
            handle.result(timeout=0.01)
    handle.result(PATIENCE)


def test_cancelled_save_leaves_the_old_checkpoint(folder: Path) -> None:
    before = folder_bytes(folder)
    with locked(folder):
        waits_for_the_lock = windlass.save_async(_state(1.0), folder)
        waits_for_its_turn = windlass.save_async(_state(2.0), folder)
        for handle in (waits_for_its_turn, waits_for_the_lock):
            assert handle.cancel()
        for handle in (waits_for_its_turn, waits_for_the_lock):
            with pytest.raises(CancelledError):
                handle.result(PATIENCE)
    assert folder_bytes(folder) == before


@pytest.mark.parametrize("safe", [True, False])
def test_save_is_cancelled_in_the_middle(folder: Path, safe: bool) -> None:  # noqa: FBT001
    before, ready = folder_bytes(folder), threading.Event()

    def tell(_: int, __: int) -> None:
        ready.set()
        assert cancelled.wait(PATIENCE)

    cancelled = threading.Event()
    handle = windlass.save_async(
        {"x": torch.ones(1000)}, folder, progress=tell, safe_serialization=safe
    )
    assert ready.wait(PATIENCE)
    assert handle.cancel()
    cancelled.set()
    handle._thread.join(PATIENCE)
    with pytest.raises(CancelledError):
        handle.result()
    assert folder_bytes(folder) == before


def test_pickle_is_cancelled_in_the_middle_of_a_file(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    began, goes_on = threading.Event(), threading.Event()

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if done > 1 << 20:
            began.set()
            assert goes_on.wait(PATIENCE)

    state = {"x": torch.ones(1 << 24)}
    handle = windlass.save_async(state, folder, safe_serialization=False, progress=tell)
    assert began.wait(PATIENCE)
    handle.cancel()
    goes_on.set()
    with pytest.raises(CancelledError):
        handle.result(PATIENCE)
    assert told[-1][0] < told[-1][1] == 1 << 26
    assert file_names(folder) == ["model.safetensors"]


def _views() -> dict[str, torch.Tensor]:
    base = torch.arange(12.0).reshape(3, 4)
    owner = torch.nn.Parameter(torch.arange(6.0))
    turned = torch.arange(4.0) * torch.tensor(1j)
    return {
        "base": base,
        "row": base[1],
        "turned": base.t(),
        "weight": owner,
        "same": owner,
        "view": torch.nn.Parameter(owner.detach()[2:], requires_grad=False),
        "complex": turned,
        "conjugated": turned.conj(),
        "negated": (torch.arange(4.0) * torch.tensor(1j)).conj().imag,
    }


def test_copy_for_a_pickle_shares_what_the_originals_share(folder: Path) -> None:
    state = _views()
    windlass.save_torch_state_dict(state, folder, safe_serialization=False)
    windlass.save_async(state, folder / "b", safe_serialization=False).result(PATIENCE)
    one, two = (
        torch.load(path / "pytorch_model.bin", weights_only=True) for path in (folder, folder / "b")
    )
    assert [type(tensor) for tensor in two.values()] == [type(tensor) for tensor in one.values()]
    assert holds(two, one)
    for names in (("base", "row", "turned"), ("weight", "same", "view"), ("complex", "conjugated")):
        assert len({two[name].untyped_storage().data_ptr() for name in names}) == 1
    assert two["weight"] is two["same"]


def test_copy_for_a_pickle_takes_no_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.sum().backward()
    copied = copy_to_host({"w": weight})["w"]
    assert copied.requires_grad
    assert copied.grad is None
    assert copied.data_ptr() != weight.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copy_for_a_pickle_of_a_device_is_in_host_memory() -> None:
    state = {name: one.detach().cuda() for name, one in _views().items()}
    state["part"] = state["base"][1:]
    before = torch.cuda.memory_allocated()
    copies = copy_to_host(state)
    assert torch.cuda.memory_allocated() == before
    assert {one.device.type for one in copies.values()} == {"cpu"}
    assert holds(copies, {name: one.cpu() for name, one in state.items()})
    assert copies["part"].untyped_storage().data_ptr() == copies["base"].data_ptr()


def test_save_that_has_ended_cannot_be_cancelled(folder: Path) -> None:
    handle = windlass.save_async(_state(1.0), folder)
    handle.result(PATIENCE)
    assert not handle.cancel()
    handle.result()


def test_error_comes_with_the_result_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    handle = windlass.save_async(_state(1.0), tmp_path / "file")
    for _ in range(2):
        with pytest.raises(SaveFailed, match="file"):
            handle.result(PATIENCE)
    assert handle.done()


def _fail(folder: Path, *, asked: bool) -> weakref.ref[Any]:
    """Let a save fail, and drop its handle."""
    (folder / "file").touch()
    handle = windlass.save_async(_state(1.0), folder / "file")
    if asked:
        with pytest.raises(SaveFailed):
            handle.result(PATIENCE)
    handle._thread.join()
    return weakref.ref(handle)


@pytest.mark.parametrize("asked", [True, False])
def test_error_that_nobody_asks_for_is_logged_when_the_handle_goes(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    asked: bool,  # noqa: FBT001
) -> None:
    handle = _fail(tmp_path, asked=asked)
    gc.collect()
    assert handle() is None
    assert [record.levelno for record in caplog.records] == ([] if asked else [logging.ERROR])
    assert asked or str(tmp_path / "file") in caplog.text


def test_failed_save_does_not_keep_the_copy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    handle = windlass.save_async({"x": torch.full((123, 457), 1.0)}, tmp_path / "file")
    handle._thread.join()
    gc.collect()
    alive = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    assert not [one for one in alive if one.shape == (123, 457)]
    with pytest.raises(SaveFailed):
        handle.result()


def test_cancelled_save_is_not_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(folder):
        first = windlass.save_async(_state(1.0), folder)
        windlass.save_async(_state(2.0), folder).cancel()
    first.result(PATIENCE)
    windlass.save_async(_state(3.0), folder).result(PATIENCE)
    gc.collect()
    assert caplog.records == []


def test_bad_input_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(UnsupportedTensor, match="weight"):
        windlass.save_async({"weight": torch.ones(2, device="meta")}, folder)
    with pytest.raises(ValueError, match="much"):
        windlass.save_async({}, folder, max_shard_size="much")
    with pytest.raises(TypeError, match="unknown"):
        windlass.save_async({}, folder, unknown=True)


@pytest.mark.parametrize("safe", [True, False])
def test_copy_over_the_budget_is_refused_with_both_numbers(folder: Path, safe: bool) -> None:  # noqa: FBT001
    options: dict[str, Any] = {"safe_serialization": safe}
    windlass.save_async({"x": torch.ones(10)}, folder, max_snapshot_bytes=40, **options).result()
    before = folder_bytes(folder)
    with pytest.raises(SnapshotTooLarge, match=r"(?s)40.*39") as caught:
        windlass.save_async({"x": torch.ones(10)}, folder, max_snapshot_bytes=39, **options)
    assert isinstance(caught.value, MemoryError)
    assert folder_bytes(folder) == before


def test_copy_that_memory_cannot_hold_is_refused(folder: Path) -> None:
    with pytest.raises(SnapshotTooLarge, match=str(4 << 45)):
        windlass.save_async({"x": torch.zeros(1).expand(1 << 45)}, folder)


def test_other_processes_copy_and_write_nothing(tmp_path: Path) -> None:
    huge = {"x": torch.zeros(1).expand(1 << 45)}
    handle = windlass.save_async(huge, tmp_path / "new", is_main_process=False)
    handle.result(PATIENCE)
    assert handle.done()
    assert file_names(tmp_path) == []


def test_pickle_keeps_ties_and_takes_results_of_a_computation(folder: Path) -> None:
    state = {**_tied(), "computed": torch.ones(2, requires_grad=True) * 3}
    windlass.save_async(state, folder, safe_serialization=False).result(PATIENCE)
    loaded = torch.load(folder / "pytorch_model.bin")
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr() == loaded["part"].data_ptr()
    assert torch.equal(loaded["computed"], torch.full((2,), 3.0))


def test_copy_of_ties_is_taken_once(folder: Path) -> None:
    weight = torch.ones(10)
    state = {"a": weight, "b": weight}
    windlass.save_async(state, folder, max_snapshot_bytes=40).result(PATIENCE)
    assert holds(windlass.load_state_dict_from_file(folder / "model.safetensors"), state)


def test_progress_is_told_from_the_background(folder: Path) -> None:
    calls: list[tuple[int, int, bool]] = []

    def tell(done: int, total: int) -> None:
        calls.append((done, total, threading.current_thread() is threading.main_thread()))

    windlass.save_async(_state(1.0), folder, progress=tell).result(PATIENCE)
    assert calls[-1] == (72, 72, False)


AT_EXIT = """
import sys, torch, windlass
from pathlib import Path
folder = Path(sys.argv[1])
state = {"w": torch.ones(300, 500).t(), "half": torch.ones(7)}
for n in range(3):
    numbered = {**state, "n": torch.full((2,), float(n))}
    windlass.save_async(numbered, folder / "safe", dtype=torch.float16)
    windlass.save_async(numbered, folder / "pickle", safe_serialization=False)
failing = windlass.save_async(state, folder / "file")
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Let a process end right after `save_async`; give its folder and what it wrote to stderr."""
    folder = tmp_path_factory.mktemp("exit")
    (folder / "file").touch()
    command = [sys.executable, "-W", "error", "-c", AT_EXIT, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return folder, done.stderr


@pytest.mark.parametrize(
    ("name", "load"),
    [("safe/model.safetensors", windlass.load_file), ("pickle/pytorch_model.bin", torch.load)],
)
def test_interpreter_waits_for_saves_before_it_exits(
    ended: tuple[Path, str], name: str, load: Callable[..., Any]
) -> None:
    folder, _ = ended
    assert load(folder / name)["n"].tolist() == [2.0, 2.0]
    assert len(file_names((folder / name).parent)) == 1


FORKED = """
import os, sys, torch, windlass
state = {"w": torch.ones(300, 500).t(), "half": torch.ones(7)}
handle = windlass.save_async(state, sys.argv[1])
child = os.fork()
windlass.save_torch_state_dict(state, sys.argv[1])
windlass.save_async(state, sys.argv[1], max_shard_size=1000).result()
if child:
    assert os.waitpid(child, 0)[1] == 0
    handle.result()
else:
    os._exit(0)
"""


def test_child_of_a_fork_saves_into_the_same_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_folder(tmp_path).keys() == {"w", "half"}


def test_error_that_nobody_asked_for_is_told_at_exit(ended: tuple[Path, str]) -> None:
    folder, told = ended
    assert told.startswith(f"the save to `{folder}/file` failed, and nobody asked")
    assert "SaveFailed" in told.splitlines()[-1]


def test_garbage_is_collected_while_a_save_goes_on(tmp_path: Path) -> None:
    seen: list[bool] = []
    windlass.save_async(
        {"a": torch.zeros(4, 4).T, "b": torch.ones(8)},
        tmp_path,
        dtype=torch.float16,
        progress=lambda *_: seen.append(gc.isenabled()),
    ).result()
    assert seen
    assert all(seen)
