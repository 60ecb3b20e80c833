"""`from_pretrained(memory="mapped")`: weights look into private maps of files, where they fit."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.bits import same_bits
from builders.mapped import misalign, names_mapped
from builders.pretrained import MODELS, assert_same_state, new_model, saved, state_of, write_folder
from torch import nn
from windlass import _rust
from windlass.errors import NotEnoughMemory
from windlass.torch.pretrained import mapped
from windlass.torch.sources import SafeSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Tokens, Labels = MODELS.TinyForTokens, MODELS.TinyForLabels


@pytest.mark.parametrize("form", [{}, {"max_shard_size": 300}], ids=["single", "sharded"])
def test_every_weight_looks_into_the_files(tmp_path: Path, form: dict[str, int]) -> None:
    model = new_model("TinyForTokens")
    model.save_pretrained(tmp_path, **form)
    again = Tokens.from_pretrained(tmp_path, memory="mapped")
    assert_same_state(again.state_dict(), model.state_dict())
    assert names_mapped(again, tmp_path) == set(model.state_dict())
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert all(isinstance(one, nn.Parameter) and one.requires_grad for one in again.parameters())


def test_progress_counts_what_is_mapped(tmp_path: Path) -> None:
    saved(tmp_path)
    calls: dict[str, list[tuple[int, int]]] = {"mapped": [], "owned": []}
    for memory, found in calls.items():
        tell = partial(lambda found, done, total: found.append((done, total)), found)
        Labels.from_pretrained(tmp_path, memory=memory, progress=tell)
        assert found[-1][0] == found[-1][1] > 0
    assert calls["mapped"][-1] == calls["owned"][-1]


@pytest.mark.parametrize("memory", ["mapped", "owned"])
def test_what_the_memory_limit_leaves_no_room_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    """What is mapped takes no memory that counts."""
    saved(tmp_path)
    monkeypatch.setattr("windlass.memory.LEAST_COMPARED", 1)
    monkeypatch.setattr(_rust, "memory_within_limits", lambda: 10)
    refused = nullcontext() if memory == "mapped" else pytest.raises(NotEnoughMemory, match="10")
    with refused:
        Labels.from_pretrained(tmp_path, memory=memory)


def test_training_leaves_the_files_alone(tmp_path: Path) -> None:
    saved(tmp_path, "TinyForTokens")
    before = (tmp_path / "model.safetensors").read_bytes()
    model = Tokens.from_pretrained(tmp_path, memory="mapped").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    old = state_of(model)
    sum(one.square().sum() for one in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    for name, one in model.named_parameters():
        torch.testing.assert_close(one.detach(), old[name] - 0.5 * 2 * old[name])
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("form", [{}, {"max_shard_size": 300}, {"safe_serialization": False}])
def test_mapped_model_is_saved_over_its_own_files(tmp_path: Path, form: dict[str, Any]) -> None:
    saved(tmp_path, "TinyForTokens")
    model = Tokens.from_pretrained(tmp_path, memory="mapped")
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)
    wanted = state_of(model)
    model.save_pretrained(tmp_path, **form)
    assert_same_state(state_of(model), wanted)
    kind = {"use_safetensors": "safe_serialization" not in form}
    assert_same_state(Tokens.from_pretrained(tmp_path, **kind).state_dict(), wanted)


def test_weights_that_are_cast_have_memory_of_their_own(tmp_path: Path) -> None:
    model = saved(tmp_path)
    again = Labels.from_pretrained(tmp_path, memory="mapped", torch_dtype=torch.bfloat16)
    assert names_mapped(again, tmp_path) == {"tiny.steps"}  # Integers are not cast.
    assert_same_state(again.state_dict(), model.bfloat16().state_dict())


def test_parts_that_stay_float32_are_cast_and_the_rest_is_mapped(tmp_path: Path) -> None:
    class Kept(Labels):
        _keep_in_fp32_modules = ("classifier",)

    Labels.from_pretrained(saved_half(tmp_path), torch_dtype=torch.float16)
    again = Kept.from_pretrained(tmp_path, memory="mapped", torch_dtype=torch.float16)
    inside = names_mapped(again, tmp_path)
    assert {name for name in again.state_dict() if name not in inside} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert again.classifier.weight.dtype == torch.float32


def saved_half(folder: Path) -> Path:
    """Save a model in float16."""
    new_model().half().save_pretrained(folder)
    return folder


class Views(Labels):
    """Has weights whose memory others look into."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        both = torch.zeros(4, 3)
        self.first, self.second = nn.Parameter(both[:2]), nn.Parameter(both[2:])
        self.turned = nn.Parameter(torch.zeros(3, 2).t())
        self.seen = nn.Parameter(torch.zeros(5))
        self.window = self.seen.detach()[1:3]
        self.register_buffer("count", torch.zeros(2, 2))


def test_entangled_and_strided_weights_have_memory_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Views(MODELS.TinyConfig())
    state = {name: torch.randint_like(one, 9) for name, one in model.state_dict().items()}
    again = Views.from_pretrained(write_folder(tmp_path, state), memory="mapped")
    assert_same_state(again.state_dict(), state)
    own = set(state) - names_mapped(again, tmp_path)
    assert own == {"first", "second", "turned", "seen"}
    assert torch.equal(again.window, state["seen"][1:3])
    assert again.turned.stride() == (1, 2)


class Twice(Labels):
    """Has one weight under two names, and does not say so."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.one = nn.Parameter(torch.zeros(3))
        self.other = self.one


@pytest.mark.parametrize("names", [("one",), ("other",), ("one", "other")])
def test_undeclared_ties_stay_ties(tmp_path: Path, names: tuple[str, ...]) -> None:
    state = state_of(new_model())
    state.update((name, torch.full((3,), float(place))) for place, name in enumerate(names, 1))
    if len(names) > 1:
        with pytest.warns(UserWarning, match="one weight in the model"):
            model = Twice.from_pretrained(write_folder(tmp_path, state), memory="mapped")
    else:
        model = Twice.from_pretrained(write_folder(tmp_path, state), memory="mapped")
    assert model.one is model.other
    assert same_bits(model.one, torch.full((3,), float(len(names))))


def test_missing_weights_are_initialised_beside_mapped_ones(tmp_path: Path) -> None:
    state = state_of(new_model())
    del state["classifier.weight"]
    model, info = Labels.from_pretrained(
        write_folder(tmp_path, state), memory="mapped", output_loading_info=True
    )
    assert info["missing_keys"] == ["classifier.weight"]
    assert "classifier.weight" not in names_mapped(model, tmp_path)
    model.classifier.weight.data.normal_()


@pytest.mark.parametrize("kind", ["pickle", "dict"])
def test_what_is_no_safetensors_is_copied(tmp_path: Path, kind: str) -> None:
    model = new_model()
    model.save_pretrained(tmp_path, safe_serialization=False)
    state = state_of(model)
    given = {"state_dict": state} if kind == "dict" else {}
    again = Labels.from_pretrained(tmp_path, memory="mapped", **given)
    assert names_mapped(again, tmp_path) == set()
    assert all(one.data_ptr() != state[name].data_ptr() for name, one in again.state_dict().items())


def test_weights_that_torch_could_not_look_at_are_read_by_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model("TinyForTokens")
    model.save_pretrained(tmp_path)
    misalign(tmp_path / "model.safetensors")
    monkeypatch.setattr(SafeSource, "tensor", None)
    again = Tokens.from_pretrained(tmp_path, memory="mapped")
    assert_same_state(again.state_dict(), model.state_dict())
    assert names_mapped(again, tmp_path) == set()


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Note how much is read ahead, and do not read it."""
    found: list[int] = []
    map_weights = mapped.map_weights

    def noted(plan: Any, source: Any, options: Any) -> Any:
        found.append(options.prefetch)
        return map_weights(plan, source, options._replace(prefetch=0))

    monkeypatch.setattr("windlass.torch.pretrained.fill_model.map_weights", noted)
    return found


def test_weights_are_read_ahead_unless_it_is_not_wanted(tmp_path: Path, budgets: list[int]) -> None:
    saved(tmp_path)
    for memory in ("mapped", "auto"):
        for wanted in ({}, {"prefetch": "1MB"}, {"prefetch": False}):
            Labels.from_pretrained(tmp_path, memory=memory, **wanted)
    assert budgets[0] > 0 < budgets[3]
    assert budgets[1:3] == budgets[4:] == [1_000_000, 0]


def test_words_that_are_none_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="memory should be one of auto, mapped, owned"):
        Labels.from_pretrained(tmp_path, memory="file")
    with pytest.raises(ValueError, match="prefetch is for what is mapped"):
        Labels.from_pretrained(tmp_path, memory="owned", prefetch=True)
