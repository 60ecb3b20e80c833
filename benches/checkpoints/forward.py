"""One forward pass of a Llama layout by plain matrix products, straight from a dict of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKENS = 8


@torch.inference_mode()
def first_logits(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of eight tokens: reads every matrix once, and eight rows of the embedding.

    No positions are encoded, and keys are as wide as all their heads: the bytes that a pass reads
    are those of the model, its words are not.
    """
    embedding = tensors["model.embed_tokens.weight"]
    tokens = torch.arange(TOKENS) * (len(embedding) // TOKENS)
    hidden = embedding[tokens]
    layer = 0
    while f"model.layers.{layer}.input_layernorm.weight" in tensors:
        hidden = _layer(hidden, tensors, f"model.layers.{layer}")
        layer += 1
    return linear(_normed(hidden, tensors["model.norm.weight"]), tensors["lm_head.weight"])


def _layer(hidden: torch.Tensor, tensors: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor:
    def project(name: str, values: torch.Tensor) -> torch.Tensor:
        return linear(values, tensors[f"{prefix}.{name}.weight"])

    normed = _normed(hidden, tensors[f"{prefix}.input_layernorm.weight"])
    key, value = project("self_attn.k_proj", normed), project("self_attn.v_proj", normed)
    query = project("self_attn.q_proj", normed)
    query = query.view(len(query), -1, key.shape[-1]).transpose(0, 1)
    attended = scaled_dot_product_attention(
        query, key.expand(len(query), -1, -1), value.expand(len(query), -1, -1), is_causal=True
    )
    hidden = hidden + project("self_attn.o_proj", attended.transpose(0, 1).flatten(1))
    normed = _normed(hidden, tensors[f"{prefix}.post_attention_layernorm.weight"])
    gated = silu(project("mlp.gate_proj", normed)) * project("mlp.up_proj", normed)
    return hidden + project("mlp.down_proj", gated)


def _normed(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rms_norm(hidden, weight.shape, weight, eps=1e-5)
