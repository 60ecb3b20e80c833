"""What a load takes: memory is the model once, and work grows with the model and no faster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.pretrained import MODELS, assert_same_state, new_model, saved
from windlass.torch.pickles import PickleShards
from windlass.torch.pretrained import tied_values
from windlass.torch.sources import DictSource

TESTS = Path(__file__).parents[2]
MIB = 1 << 20

LOAD = """
import os, resource, sys, torch
from builders.pretrained import MODELS
config = MODELS.TinyConfig.from_pretrained(sys.argv[1])
MODELS.TinyForTokens.from_pretrained(None, config=MODELS.TinyConfig(), state_dict={})

def memory(key):
    if not os.path.exists("/proc/self/clear_refs"):  # Peaks are told of the whole life only.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))

before = memory("VmRSS")
if os.path.exists("/proc/self/clear_refs"):
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # The peak starts anew.
model = MODELS.TinyForTokens.from_pretrained(
    sys.argv[1], torch_dtype="auto", memory=sys.argv[2]
)
for parameter in model.parameters():
    parameter.detach().view(torch.uint8).flatten()[::4096].sum()  # What is mapped is read now.
print(memory("VmHWM") - before, model.get_memory_footprint())
"""


def _peak(folder: Path, memory: str = "auto") -> tuple[int, int]:
    """Return the memory that a load takes at most, and that of the model."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(folder), memory],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    peak, size = map(int, done.stdout.split())
    assert size > 200 * MIB
    return peak, size


@pytest.mark.parametrize("memory", ["mapped", "owned"])
@pytest.mark.parametrize("form", [{}, {"max_shard_size": "40MB"}], ids=["single", "sharded"])
def test_peak_is_the_model_once(tmp_path: Path, form: dict[str, str], memory: str) -> None:
    model = new_model("TinyForTokens", vocab_size=60_000, hidden_size=1024, num_layers=4)
    model.save_pretrained(tmp_path, **form)
    peak, size = _peak(tmp_path, memory)
    assert peak <= size + 64 * MIB


@pytest.mark.parametrize("form", [{}, {"max_shard_size": "150MB"}], ids=["single", "sharded"])
def test_peak_of_pickles_is_the_model_and_one_stretch(tmp_path: Path, form: dict[str, str]) -> None:
    model = new_model("TinyForTokens", hidden_size=1536, num_layers=24)
    model.save_pretrained(tmp_path, safe_serialization=False, **form)
    peak, size = _peak(tmp_path)
    assert peak <= size + 144 * MIB + max(one.nbytes for one in model.parameters())


def test_same_bytes_of_tied_weights_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model("TinyForTokens")
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    compared: list[torch.Tensor] = []
    monkeypatch.setattr(tied_values, "same_values", lambda *both: not compared.append(both[0]))
    MODELS.TinyForTokens.from_pretrained(tmp_path)
    assert compared == []
    state["lm_head.weight"] = state["lm_head.weight"].clone()
    torch.save(state, tmp_path / "pytorch_model.bin")
    MODELS.TinyForTokens.from_pretrained(tmp_path)
    assert len(compared) == 1


def test_pickles_are_let_go_of_as_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model("TinyForTokens", num_layers=4)
    model.save_pretrained(tmp_path, safe_serialization=False, max_shard_size=400)
    held: list[int] = []
    pieces = DictSource.pieces

    def count(self: DictSource, *arguments: Any) -> Any:
        for one in pieces(self, *arguments):
            held.append(len(self._entries))
            yield one

    monkeypatch.setattr(DictSource, "pieces", count)
    again = MODELS.TinyForTokens.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), model.state_dict())
    assert held == sorted(held, reverse=True)
    assert held[-1] <= 2 < held[0]


@pytest.fixture
def stretches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Map files again after every few tensors, and note how many tensors were left."""
    left: list[int] = []
    map_again = PickleShards.map_again

    def noted(self: PickleShards, path: str, wanted: Any) -> dict[str, torch.Tensor]:
        found = map_again(self, path, wanted)
        left.append(len(found))
        return found

    monkeypatch.setattr(PickleShards, "stretch", lambda *_: 300)
    monkeypatch.setattr(PickleShards, "map_again", noted)
    return left


@pytest.mark.parametrize("form", [{}, {"max_shard_size": 1000}], ids=["single", "sharded"])
def test_pickles_that_are_mapped_again_are_loaded(
    tmp_path: Path, form: dict[str, int], stretches: list[int]
) -> None:
    model = new_model("TinyForTokens", num_layers=8)
    model.save_pretrained(tmp_path, safe_serialization=False, **form)
    again = MODELS.TinyForTokens.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), model.state_dict())
    assert len([count for count in stretches if count]) > 2


def test_pickle_that_is_replaced_meanwhile_is_read_from_its_first_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretches: list[int]
) -> None:
    model = new_model("TinyForTokens", num_layers=8)
    model.save_pretrained(tmp_path, safe_serialization=False)
    let_go = DictSource._let_go

    def replace(self: DictSource, name: str, nbytes: int) -> None:
        torch.save({}, tmp_path / "new")
        os.replace(tmp_path / "new", tmp_path / "pytorch_model.bin")
        let_go(self, name, nbytes)

    monkeypatch.setattr(DictSource, "_let_go", replace)
    again = MODELS.TinyForTokens.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), model.state_dict())
    assert set(stretches) == {0}


def test_code_in_a_pickle_runs_once(tmp_path: Path, stretches: list[int]) -> None:
    model = new_model("TinyForTokens", num_layers=8)
    model.save_pretrained(tmp_path, safe_serialization=False)
    again = MODELS.TinyForTokens.from_pretrained(tmp_path, weights_only=False)
    assert_same_state(again.state_dict(), model.state_dict())
    assert set(stretches) == {0}


class Hooked(MODELS.TinyForTokens):
    """Loads itself as a whole."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._register_load_state_dict_pre_hook(lambda *_: None)


def test_model_that_loads_itself_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path, "TinyForTokens")

    def refuse(module: object) -> None:
        raise AssertionError(module)

    monkeypatch.setattr("windlass.torch.plan.Snapshot", refuse)
    again = Hooked.from_pretrained(tmp_path)
    assert_same_state(again.state_dict(), model.state_dict())


def _calls(folder: Path) -> int:
    counted: Counter[str] = Counter()

    def count(frame: object, event: str, argument: object) -> None:
        del frame, argument
        counted[event] += 1

    sys.setprofile(count)
    try:
        MODELS.TinyForTokens.from_pretrained(folder)
    finally:
        sys.setprofile(None)
    return counted["call"]


def test_work_grows_with_the_number_of_modules(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for layers in (1, 20, 80):
        saved(tmp_path / str(layers), "TinyForTokens", num_layers=layers)
    MODELS.TinyForTokens.from_pretrained(tmp_path / "1")
    few, many = _calls(tmp_path / "20"), _calls(tmp_path / "80")
    assert many < 4.2 * few
