"""The loading report and the weights of damaged checkpoints are those of transformers 4.46.3."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.pretrained import KINDS, MODELS, assert_same_state, new_model, write_folder
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.client import Answer, Oracle

DAMAGES = ("remove", "extra", "reshape", "rename", "old spelling", "buffer")


@dataclass(frozen=True)
class Case:
    """A model, the checkpoint of maybe another one, and what became of it."""

    model: str
    source: str
    head_bias: bool
    tied: bool
    prefix: str
    damages: tuple[tuple[str, int], ...]
    shards: int
    ignores: bool
    seed: int


def cases() -> st.SearchStrategy[Case]:
    """Draw a case; about one in ten has no damage at all."""
    damage = st.tuples(st.sampled_from(DAMAGES), st.integers(0, 30))
    return st.builds(
        Case,
        model=st.sampled_from(KINDS),
        source=st.sampled_from(KINDS),
        head_bias=st.booleans(),
        tied=st.booleans(),
        prefix=st.sampled_from(["", "", "", "add", "remove"]),
        damages=st.lists(damage, max_size=4).map(tuple),
        shards=st.integers(0, 3),
        ignores=st.booleans(),
        seed=st.integers(0, 1000),
    )


def damaged(case: Case) -> dict[str, torch.Tensor]:
    """Return the state of the source model after what befell it."""
    config = {"head_bias": case.head_bias, "tie_word_embeddings": case.tied}
    state = dict(new_model(case.source, case.seed, **config).state_dict())
    if case.tied and case.source == "TinyForTokens":
        del state["lm_head.weight"]
    for kind, number in case.damages:
        _damage(state, kind, number)
    if case.prefix == "add":
        return {f"tiny.{name}": value for name, value in state.items()}
    if case.prefix == "remove":
        return {name.removeprefix("tiny."): value for name, value in state.items()}
    return state


def _damage(state: dict[str, torch.Tensor], kind: str, number: int) -> None:
    names = list(state)
    prefix = "tiny." if any(one.startswith("tiny.") for one in names) else ""
    if kind == "extra" or not names:
        state[f"extra.{number}.weight"] = torch.ones(2)
        return
    name = names[number % len(names)]
    if kind == "buffer":
        state[f"{prefix}positions"] = torch.arange(7)
    elif kind == "remove":
        del state[name]
    elif kind == "reshape" and "LayerNorm" not in name:  # An old spelling is not ignored by 4.46.
        state[name] = torch.zeros(*state[name].shape, 2)
    elif kind == "rename":
        state[f"{name}_other"] = state.pop(name)
    elif kind == "old spelling":
        for one in [one for one in names if "LayerNorm" in one]:
            new = one.replace("LayerNorm.weight", "LayerNorm.gamma")
            state[new.replace("LayerNorm.bias", "LayerNorm.beta")] = state.pop(one)


def question(folder: Path, case: Case) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "model": case.model,
        "seed": case.seed,
        "options": {"ignore_mismatched_sizes": case.ignores},
    }


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(asked["seed"])
    kind = getattr(MODELS, asked["model"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Two values for one weight: tested elsewhere.
        model, info = kind.from_pretrained(
            asked["folder"], output_loading_info=True, **asked["options"]
        )
    found = {
        key: sorted(
            (one[0], tuple(one[1]), tuple(one[2])) if isinstance(one, tuple) else one
            for one in values
        )
        for key, values in info.items()
    }
    return {"info": found, "state": dict(model.state_dict()), "training": model.training}


def compare(case: Case, asked: dict[str, Any], answer: Answer) -> None:
    if answer.error:
        with pytest.raises(answer.kind):
            ours(asked)
        return
    mine = ours(asked)
    unexpected = mine["info"]["unexpected_keys"]  # 4.46 tells what it has made of old spellings.
    mine["info"]["unexpected_keys"] = sorted(map(_respelled, unexpected))
    assert mine["info"] == answer.value["info"]
    assert not mine["training"]
    expected = answer.value["state"]
    if case.ignores:  # 4.46 then draws for every module, so that it draws other numbers.
        for name in [name for name in expected if _is_drawn(name, mine["info"])]:
            del expected[name], mine["state"][name]
    assert_same_state(mine["state"], expected)


def _respelled(name: str) -> str:
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


def _is_drawn(name: str, info: dict[str, Any]) -> bool:
    """Whether a weight was initialised, as the report has it; names differ by a prefix."""
    names = {*info["missing_keys"], *(one[0] for one in info["mismatched_keys"])}
    plain = {one.removeprefix("tiny.") for one in names}
    is_tied = name == "lm_head.weight" and "embed.weight" in plain
    return is_tied or name.removeprefix("tiny.") in plain


@pytest.mark.timeout(600)  # The oracle takes a third of a second for a case.
@settings(max_examples=2, phases=[Phase.generate])  # A case is small enough as it is.
@given(st.lists(cases(), min_size=12, max_size=12))
def test_damaged_checkpoints_load_as_in_446(
    tmp_path_factory: pytest.TempPathFactory, oracle: Oracle, drawn: list[Case]
) -> None:
    asked = []
    for case in drawn:
        folder = tmp_path_factory.mktemp("case")
        config = {"head_bias": case.head_bias, "tie_word_embeddings": case.tied}
        asked.append(question(write_folder(folder, damaged(case), case.shards, **config), case))
    for case, one, answer in zip(drawn, asked, oracle.ask("pretrained.load", asked), strict=True):
        compare(case, one, answer)
