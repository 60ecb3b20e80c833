"""`state_dict=` and pickles: what a module says of itself besides its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from windlass import PretrainedConfig, PreTrainedModel

if TYPE_CHECKING:
    from pathlib import Path


class Versioned(nn.Module):
    """Notes which version the state that it is given has."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.seen: list[object] = []

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, local: dict[str, Any], *args: Any
    ) -> None:
        self.seen.append(local.get("version"))
        super()._load_from_state_dict(state, prefix, local, *args)


class Counting(nn.Module):
    """Keeps a dictionary beside its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.counts = {"steps": 0}

    def get_extra_state(self) -> dict[str, int]:
        return self.counts

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.counts = state


def _model_with(part: type[nn.Module]) -> Any:
    class Model(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.part = part()
            self.post_init()

    return Model(PretrainedConfig())


def _again(model: Any, folder: Path, form: str) -> Any:
    if form == "given":
        return type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict())
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return type(model).from_pretrained(folder)


@pytest.mark.parametrize("form", ["given", "pickle"])
def test_versions_of_modules_are_kept(tmp_path: Path, form: str) -> None:
    assert _again(_model_with(Versioned), tmp_path, form).part.seen == [2]


@pytest.mark.parametrize("form", ["given", "pickle"])
def test_extra_state_is_loaded(tmp_path: Path, form: str) -> None:
    model = _model_with(Counting)
    model.part.counts = {"steps": 7}
    assert _again(model, tmp_path, form).part.counts == {"steps": 7}
