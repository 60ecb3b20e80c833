"""A GPT-like model written by hand: trained, saved in shards, loaded back, resumed.

    python examples/gpt_like.py

It shows what a subclass of `PreTrainedModel` has to say, and what it gets for it. No transformers,
no network, no GPU; a few seconds.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
import training
from terminal import DemoFailed, exit_status
from torch import nn
from windlass import PretrainedConfig, PreTrainedModel

if TYPE_CHECKING:
    from training import Batch

BATCH, LENGTH = 16, 16


class GptLikeConfig(PretrainedConfig):
    """What is to be known of a GPT-like model before its weights."""

    model_type = "gpt-like"

    def __init__(
        self,
        *,
        vocab_size: int = 64,
        hidden_size: int = 32,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        max_position_embeddings: int = 32,
        initializer_range: float = 0.02,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        super().__init__(**kwargs)


class Block(nn.Module):
    """Attention to the past, then two layers for each place."""

    def __init__(self, config: GptLikeConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states after this block."""
        hidden = hidden + self.attend(self.norm_1(hidden))
        better: torch.Tensor = self.down(nn.functional.gelu(self.up(self.norm_2(hidden))))
        return hidden + better

    def attend(self, hidden: torch.Tensor) -> torch.Tensor:
        """Mix each place with those before it."""
        batch, length, width = hidden.shape
        parts = self.query_key_value(hidden).view(batch, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class GptLikePreTrainedModel(PreTrainedModel):
    """What all models of the family share: the config, the prefix, how weights begin."""

    config_class = GptLikeConfig
    base_model_prefix = "transformer"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
        if isinstance(module, nn.LayerNorm):
            module.weight.data.fill_(1)
            module.bias.data.zero_()


class GptLikeModel(GptLikePreTrainedModel):
    """The body: ids → hidden states."""

    def __init__(self, config: GptLikeConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of tokens, which heads are tied to."""
        return self.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embeddings of tokens, as a resize does."""
        self.tokens = value  # type: ignore[assignment]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the hidden state at each place."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden: torch.Tensor = self.tokens(input_ids) + self.places(places)
        for block in self.blocks:
            hidden = block(hidden)
        normed: torch.Tensor = self.norm(hidden)
        return normed


class GptLikeForCausalLM(GptLikePreTrainedModel):
    """The body with a head that says which token comes next; it shares the tokens' weights."""

    _tied_weights_keys = ["lm_head.weight"]  # noqa: RUF012  (as the API has it)

    def __init__(self, config: GptLikeConfig) -> None:
        super().__init__(config)
        self.transformer = GptLikeModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the head, which is tied to the input embeddings."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head, as a resize does."""
        self.lm_head = new_embeddings  # type: ignore[assignment]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return how surprising each next token is."""
        scores = self.lm_head(self.transformer(input_ids[:, :-1]))
        return nn.functional.cross_entropy(scores.flatten(0, 1), input_ids[:, 1:].flatten())


def make_batch(generator: torch.Generator) -> Batch:
    """Make up sequences that count in steps of 1, 2 or 3, from anywhere."""
    start = torch.randint(0, 64, (BATCH, 1), generator=generator)
    stride = torch.randint(1, 4, (BATCH, 1), generator=generator)
    return {"input_ids": (start + stride * torch.arange(LENGTH)) % 64}


def check_tie(model: GptLikeForCausalLM) -> None:
    """Fail if head and tokens, which are stored once, came back as two."""
    if model.lm_head.weight is not model.transformer.tokens.weight:
        message = "the head is not tied any more"
        raise DemoFailed(message)


def main() -> None:
    """Run the example."""
    torch.manual_seed(0)
    check_tie(training.run(GptLikeForCausalLM(GptLikeConfig()), make_batch))


if __name__ == "__main__":
    sys.exit(exit_status(main))
