"""safetensors' keyword `backend=` is taken wherever safetensors takes it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import windlass
import windlass.arrays
import windlass.numpy
import windlass.torch.load_saved
from builders.bits import fingerprint
from builders.saves import holds

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ("mmap", "pread")
LOADERS = {"torch": windlass.load_file, "numpy": windlass.numpy.load_file}
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file with the values of a linear layer."""
    windlass.save_file(STATE, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("framework", LOADERS)
def test_values_are_the_same_by_either_backend(path: Path, framework: str, backend: Any) -> None:
    loaded = LOADERS[framework](path, backend=backend)
    assert holds({name: torch.as_tensor(one) for name, one in loaded.items()}, STATE)


@pytest.mark.parametrize("framework", LOADERS)
def test_pread_does_not_map_the_file(path: Path, framework: str) -> None:
    kept = {backend: LOADERS[framework](path, backend=backend)["weight"] for backend in BACKENDS}
    with path.open("r+b") as file:
        file.seek(-48, 2)
        file.write(bytes(48))
    assert np.array_equal(np.asarray(kept["pread"]), STATE["weight"].numpy())
    assert not np.any(np.asarray(kept["mmap"]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_model_is_read_by_the_backend(
    path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    fill_model = windlass.torch.load_saved.fill_model

    def fill(*arguments: Any, **options: Any) -> Any:
        asked.append(options["io"])
        return fill_model(*arguments, **options)

    monkeypatch.setattr(windlass.torch.load_saved, "fill_model", fill)
    model = torch.nn.Linear(3, 2)
    assert windlass.load_model(model, path, backend=backend) == ([], [])
    assert holds(model.state_dict(), STATE)
    assert asked == [{"mmap": "auto", "pread": "buffered"}[backend]]


def test_unknown_backend_is_refused_before_anything_happens(path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    before = fingerprint(model)
    for load in (*LOADERS.values(), lambda path, **how: windlass.load_model(model, path, **how)):
        with pytest.raises(ValueError, match=r"backend.*mmap, pread.*'tape'"):
            load(path, backend="tape")
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (windlass.load_file, safetensors.torch.load_file),
        (windlass.load_model, safetensors.torch.load_model),
        (windlass.numpy.load_file, safetensors.numpy.load_file),
    ],
)
def test_every_keyword_of_safetensors_is_taken(ours: Any, theirs: Any) -> None:
    mine, other = (inspect.signature(one).parameters for one in (ours, theirs))
    assert mine.keys() >= other.keys()
    assert [mine[name].default for name in other] == [one.default for one in other.values()]
