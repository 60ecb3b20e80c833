"""The layouts that are measured, each by its name. Pure: sizes and names, no bytes.

Names are those that transformers gives the same architectures. Every family has a `-quick` twin of
the same form and a few megabytes, for checking the harness rather than for measuring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints.layout import Layout, TensorSpec, split_by_bytes, split_by_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MEGABYTE = 10**6
FLAT_SHAPE = (256,)  # 1 KiB of float32.
LLAMA_LAYER_MEGABYTES, LLAMA_OUTER_MEGABYTES = 22.0, 16.4  # Of the layouts `bytes-N`.
EXPERTS_PER_LAYER = 8
EXPERT_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def _llama(
    layers: int, hidden: int, intermediate: int, key_value: int, vocabulary: int
) -> Iterator[TensorSpec]:
    def bf16(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(name, "BF16", shape)

    yield bf16("model.embed_tokens.weight", vocabulary, hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        yield bf16(f"{prefix}.self_attn.q_proj.weight", hidden, hidden)
        yield bf16(f"{prefix}.self_attn.k_proj.weight", key_value, hidden)
        yield bf16(f"{prefix}.self_attn.v_proj.weight", key_value, hidden)
        yield bf16(f"{prefix}.self_attn.o_proj.weight", hidden, hidden)
        yield bf16(f"{prefix}.mlp.gate_proj.weight", intermediate, hidden)
        yield bf16(f"{prefix}.mlp.up_proj.weight", intermediate, hidden)
        yield bf16(f"{prefix}.mlp.down_proj.weight", hidden, intermediate)
        yield bf16(f"{prefix}.input_layernorm.weight", hidden)
        yield bf16(f"{prefix}.post_attention_layernorm.weight", hidden)
    yield bf16("model.norm.weight", hidden)
    yield bf16("lm_head.weight", vocabulary, hidden)


def _mixtral(
    layers: int, hidden: int, intermediate: int, key_value: int, vocabulary: int
) -> Iterator[TensorSpec]:
    def bf16(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(name, "BF16", shape)

    yield bf16("model.embed_tokens.weight", vocabulary, hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        yield bf16(f"{prefix}.self_attn.q_proj.weight", hidden, hidden)
        yield bf16(f"{prefix}.self_attn.k_proj.weight", key_value, hidden)
        yield bf16(f"{prefix}.self_attn.v_proj.weight", key_value, hidden)
        yield bf16(f"{prefix}.self_attn.o_proj.weight", hidden, hidden)
        yield bf16(f"{prefix}.block_sparse_moe.gate.weight", EXPERTS_PER_LAYER, hidden)
        for expert in range(EXPERTS_PER_LAYER):
            experts = f"{prefix}.block_sparse_moe.experts.{expert}"
            yield bf16(f"{experts}.w1.weight", intermediate, hidden)
            yield bf16(f"{experts}.w2.weight", hidden, intermediate)
            yield bf16(f"{experts}.w3.weight", intermediate, hidden)
        yield bf16(f"{prefix}.input_layernorm.weight", hidden)
        yield bf16(f"{prefix}.post_attention_layernorm.weight", hidden)
    yield bf16("model.norm.weight", hidden)
    yield bf16("lm_head.weight", vocabulary, hidden)


def _tiny_transformer(layers: int, hidden: int) -> Iterator[TensorSpec]:
    """Twelve tensors a layer (attention with biases), each of a few hundred bytes."""
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj"):
            attention = f"{prefix}.self_attn.{projection}"
            yield TensorSpec(f"{attention}.weight", "F32", (hidden, hidden))
            yield TensorSpec(f"{attention}.bias", "F32", (hidden,))
        yield TensorSpec(f"{prefix}.self_attn.o_proj.weight", "F32", (hidden, hidden))
        for projection in EXPERT_PROJECTIONS:
            yield TensorSpec(f"{prefix}.mlp.{projection}.weight", "F32", (hidden, hidden))
        yield TensorSpec(f"{prefix}.input_layernorm.weight", "F32", (hidden,))
        yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", "F32", (hidden,))


def _flat_children(count: int) -> Iterator[TensorSpec]:
    return (TensorSpec(f"block_{number:06d}.weight", "F32", FLAT_SHAPE) for number in range(count))


def _flat_parameters(count: int) -> Iterator[TensorSpec]:
    return (TensorSpec(f"weight_{number:06d}", "F32", FLAT_SHAPE) for number in range(count))


def _many_experts(count: int, experts_per_layer: int) -> Iterator[TensorSpec]:
    for number in range(count):
        expert, projection = divmod(number, len(EXPERT_PROJECTIONS))
        layer, expert = divmod(expert, experts_per_layer)
        name = f"model.layers.{layer}.mlp.experts.{expert}.{EXPERT_PROJECTIONS[projection]}.weight"
        yield TensorSpec(name, "BF16", (64, 64))


def _tinyllama(name: str) -> Layout:
    tensors = list(_llama(22, 2048, 5632, 256, 32_000))
    return Layout(name, split_by_bytes(tensors, 480 * MEGABYTE))


def _tinyllama_quick(name: str) -> Layout:
    return Layout(name, split_by_count(list(_llama(4, 512, 1408, 64, 2_000)), 5))


def _mixtral_like(name: str) -> Layout:
    tensors = list(_mixtral(32, 1024, 1152, 256, 32_000))
    return Layout(name, split_by_bytes(tensors, 480 * MEGABYTE))


def _mixtral_like_quick(name: str) -> Layout:
    return Layout(name, split_by_count(list(_mixtral(4, 128, 256, 64, 2_000)), 5))


def _llama_of(megabytes: int) -> list[TensorSpec]:
    """A Llama layout of about so many megabytes: as many layers as fit, one at least."""
    layers = round((megabytes - LLAMA_OUTER_MEGABYTES) / LLAMA_LAYER_MEGABYTES)
    return list(_llama(max(1, layers), 1024, 2816, 128, 4_000))


def _llama70b(name: str) -> Layout:
    tensors = list(_llama(80, 8192, 28_672, 1024, 32_000))
    return Layout(name, split_by_bytes(tensors, 4_900 * MEGABYTE), sparse=True)


def _llama70b_quick(name: str) -> Layout:
    tensors = list(_llama(8, 8192, 28_672, 1024, 32_000))
    return Layout(name, split_by_bytes(tensors, 5_000 * MEGABYTE), sparse=True)


FAMILIES: dict[str, Callable[[str], Layout]] = {
    "tinyllama": _tinyllama,
    "tinyllama-quick": _tinyllama_quick,
    "mixtral": _mixtral_like,
    "mixtral-quick": _mixtral_like_quick,
    "tiny-transformer": lambda name: Layout(name, (tuple(_tiny_transformer(500, 16)),)),
    "tiny-transformer-quick": lambda name: Layout(name, (tuple(_tiny_transformer(20, 16)),)),
    "llama70b": _llama70b,
    "llama70b-quick": _llama70b_quick,
    "million": lambda name: Layout(
        name, split_by_count(list(_many_experts(1_000_000, 4096)), 200), sparse=True
    ),
    "million-quick": lambda name: Layout(
        name, split_by_count(list(_many_experts(10_000, 256)), 20), sparse=True
    ),
    "one-kilobyte": lambda name: Layout(name, ((TensorSpec("weight", "F32", FLAT_SHAPE),),)),
}


#: Layouts that exist for every number, called `FAMILY-N`.
COUNTED: dict[str, Callable[[int], Iterable[Sequence[TensorSpec]]]] = {
    "flat-children": lambda count: [list(_flat_children(count))],
    "flat-parameters": lambda count: [list(_flat_parameters(count))],
    "bytes": lambda megabytes: split_by_count(_llama_of(megabytes), 4),
    "shards": lambda count: split_by_count(_llama_of(1_000), count),
}


def build_layout(name: str) -> Layout:
    """Return the layout `name`; those of `COUNTED` exist for every N."""
    if name in FAMILIES:
        return FAMILIES[name](name)
    family, _, count = name.rpartition("-")
    return Layout(name, tuple(tuple(shard) for shard in COUNTED[family](int(count))))
