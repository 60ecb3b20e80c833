"""Heads for questions and summaries, compared with transformers 4.46.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from windlass import PretrainedConfig, modeling_utils
from windlass.errors import InvalidConfig, NotSupported
from windlass.modeling_utils import PoolerEndLogits, SequenceSummary, SQuADHead, SquadHeadOutput

if TYPE_CHECKING:
    from oracle.client import Oracle

CONFIG = {"hidden_size": 4, "layer_norm_eps": 1e-5, "start_n_top": 2, "end_n_top": 2}
BATCH, LENGTH = 3, 5
STATES = torch.linspace(-2, 2, BATCH * LENGTH * 4).reshape(BATCH, LENGTH, 4).sin()
POSITIONS = torch.tensor([0, 2, 4])
MASK = torch.tensor([[0, 0, 0, 1, 1]] * BATCH)


def _compare(oracle: Oracle, kind: str, config: dict[str, Any], inputs: dict[str, Any]) -> None:
    torch.manual_seed(1)
    head = getattr(modeling_utils, kind)(PretrainedConfig(**config)).eval()
    values = {name: tensor.detach() for name, tensor in head.state_dict().items()}
    case = {"kind": kind, "config": config, "values": values, "inputs": inputs}
    theirs = oracle.ask_one("layers.head", case).value
    ours = head(**inputs)
    for one, other in zip(
        ours if isinstance(ours, tuple) else [ours],
        theirs if isinstance(theirs, list) else [theirs],
        strict=True,
    ):
        torch.testing.assert_close(one.detach(), other)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("PoolerStartLogits", {}),
        ("PoolerEndLogits", {"start_positions": POSITIONS}),
        ("PoolerEndLogits", {"start_states": STATES.flip(0)}),
        ("PoolerEndLogits", {"start_states": STATES.flip(0), "start_positions": POSITIONS}),
        ("SQuADHead", {}),
        ("SQuADHead", {"cls_index": POSITIONS}),
        ("SQuADHead", {"start_positions": POSITIONS}),
        ("SQuADHead", {"start_positions": POSITIONS, "end_positions": POSITIONS}),
        (
            "SQuADHead",
            {
                "start_positions": POSITIONS.unsqueeze(-1),
                "end_positions": POSITIONS,
                "cls_index": POSITIONS,
                "is_impossible": torch.tensor([0.0, 1.0, 0.0]),
            },
        ),
    ],
)
def test_head_computes_what_that_of_446_does(
    oracle: Oracle, kind: str, inputs: dict[str, Any], mask: torch.Tensor | None
) -> None:
    _compare(oracle, kind, CONFIG, {"hidden_states": STATES, "p_mask": mask, **inputs})


@pytest.mark.parametrize(
    "inputs",
    [
        {"start_positions": POSITIONS},
        {"start_states": STATES[:, 0]},
        {"start_states": STATES[:, 0], "cls_index": POSITIONS},
    ],
)
def test_answer_class_computes_what_that_of_446_does(
    oracle: Oracle, inputs: dict[str, Any]
) -> None:
    _compare(oracle, "PoolerAnswerClass", CONFIG, {"hidden_states": STATES, **inputs})


@pytest.mark.parametrize("kind", ["PoolerEndLogits", "PoolerAnswerClass"])
def test_head_without_a_start_is_refused(kind: str) -> None:
    head = getattr(modeling_utils, kind)(PretrainedConfig(**CONFIG))
    with pytest.raises(ValueError, match="found neither"):
        head(STATES)


def test_hidden_tokens_are_finite_in_half_precision() -> None:
    head = PoolerEndLogits(PretrainedConfig(**CONFIG)).half()
    scores = head(STATES.half(), start_positions=POSITIONS, p_mask=MASK)
    assert scores.isfinite().all()


def test_output_may_be_by_name_and_positions_are_not_changed() -> None:
    head = SQuADHead(PretrainedConfig(**CONFIG)).eval()
    found = head(STATES, return_dict=True)
    assert isinstance(found, SquadHeadOutput)
    assert found.loss is None
    assert torch.equal(found.end_top_index, head(STATES)[3])
    positions = POSITIONS.unsqueeze(-1)
    loss = head(STATES, positions, POSITIONS, return_dict=True).loss
    assert loss.requires_grad
    assert positions.shape == (BATCH, 1)


@given(
    st.fixed_dictionaries(
        {"summary_type": st.sampled_from(["last", "first", "mean", "cls_index"])},
        optional={
            "summary_use_proj": st.booleans(),
            "summary_proj_to_labels": st.booleans(),
            "num_labels": st.integers(0, 3),
            "summary_activation": st.sampled_from([None, "", "tanh", "relu", "gelu", "silu"]),
            "summary_first_dropout": st.sampled_from([0, 0.1]),
            "summary_last_dropout": st.sampled_from([0, 0.1]),
        },
    ),
    st.sampled_from([None, POSITIONS]),
)
def test_summary_is_that_of_446(
    oracle: Oracle, config: dict[str, Any], index: torch.Tensor | None
) -> None:
    inputs = {"hidden_states": STATES, "cls_index": index}
    _compare(oracle, "SequenceSummary", {"hidden_size": 4, **config}, inputs)


@pytest.mark.parametrize("index", [None, torch.tensor([[0, 1], [2, 3], [4, 0]])])
def test_summary_at_tokens_may_have_more_dimensions(
    oracle: Oracle, index: torch.Tensor | None
) -> None:
    states = STATES.unsqueeze(1).repeat(1, 2, 1, 1)
    inputs = {"hidden_states": states, "cls_index": index}
    _compare(oracle, "SequenceSummary", {"summary_type": "cls_index"}, inputs)


@pytest.mark.parametrize(
    "name",
    [
        "gelu", "gelu_new", "gelu_pytorch_tanh", "leaky_relu", "linear", "mish", "relu", "relu6",
        "sigmoid", "silu", "swish", "tanh",
    ],
)  # fmt: skip
def test_activation_is_that_of_446(oracle: Oracle, name: str) -> None:
    config = {"summary_type": "last", "summary_activation": name}
    _compare(oracle, "SequenceSummary", config, {"hidden_states": STATES})


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("summary_type", "attn", NotSupported),
        ("summary_type", "best", InvalidConfig),
        ("summary_activation", "gelu_10", InvalidConfig),
    ],
)
def test_summary_of_an_unknown_kind_is_refused(field: str, value: str, error: type) -> None:
    with pytest.raises(error, match=field):
        SequenceSummary(PretrainedConfig(**{field: value}))
