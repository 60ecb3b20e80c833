"""Names of a checkpoint against names of a model."""

from __future__ import annotations

import pytest
from windlass.errors import MixedNames
from windlass.torch.pretrained.keys import match_keys, without_ignored


def test_same_names_match() -> None:
    match = match_keys(["a", "b"], ["b", "a"], base_model_prefix="bert")
    assert match.stored == {"a": "a", "b": "b"}
    assert (match.absent, match.unexpected) == ({}, [])


def test_prefix_of_the_base_model_is_removed() -> None:
    match = match_keys(["bert.a", "head.b"], ["a", "c"], base_model_prefix="bert")
    assert match.stored == {"bert.a": "a"}
    assert match.absent == {"head.b": "head.b"}
    assert match.unexpected == ["c"]


def test_prefix_of_the_base_model_is_added() -> None:
    match = match_keys(["a", "b"], ["bert.a", "head.b"], base_model_prefix="bert")
    assert match.stored == {"a": "bert.a"}
    assert match.absent == {"b": "bert.b"}
    assert match.unexpected == ["head.b"]


def test_prefix_ends_with_a_dot() -> None:
    match = match_keys(["bert.a"], ["berta"], base_model_prefix="bert")
    assert match.absent == {"bert.a": "a"}


def test_head_beside_a_base_model_without_prefix_is_refused() -> None:
    with pytest.raises(MixedNames, match=r"head\.b"):
        match_keys(["bert.a", "head.b"], ["a", "head.b"], base_model_prefix="bert")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LayerNorm.gamma", "LayerNorm.weight"),
        ("LayerNorm.beta", "LayerNorm.bias"),
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("conv.weight_v", "conv.parametrizations.weight.original1"),
        ("conv.parametrizations.weight.original1", "conv.weight_v"),
    ],
)
def test_old_spelling_matches(old: str, new: str) -> None:
    match = match_keys([new], [old], base_model_prefix="")
    assert match.stored == {new: old}
    assert match.unexpected == []


@pytest.mark.parametrize("name", ["gamma", "beta_proj.weight", "mlp.gamma", "x.betas.weight"])
def test_a_name_that_the_model_has_is_never_respelled(name: str) -> None:
    match = match_keys([name], [name], base_model_prefix="")
    assert match.stored == {name: name}


def test_own_spelling_goes_before_an_old_one() -> None:
    match = match_keys(["a.weight"], ["a.gamma", "a.weight"], base_model_prefix="")
    assert match.stored == {"a.weight": "a.weight"}
    assert match.unexpected == ["a.gamma"]


def test_name_that_the_model_has_is_no_old_spelling_of_another() -> None:
    match = match_keys(["m.weight", "m.gamma"], ["m.gamma"], base_model_prefix="")
    assert match.stored == {"m.gamma": "m.gamma"}
    assert match.absent == {"m.weight": "m.weight"}


def test_buffers_that_are_not_saved_are_not_unexpected() -> None:
    match = match_keys(["bert.a"], ["a", "mask"], base_model_prefix="bert", transient=["bert.mask"])
    assert match.unexpected == []


def test_patterns_are_found_anywhere_in_a_name() -> None:
    assert without_ignored(["h.0.mask", "h.1.bias"], [r"\.mask$", "nothing"]) == ["h.1.bias"]
    assert without_ignored(["a"], None) == ["a"]
