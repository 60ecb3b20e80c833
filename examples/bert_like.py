"""A BERT-like model written by hand: trained, saved in shards, loaded back, resumed, fine-tuned.

    python examples/bert_like.py

Besides what `gpt_like.py` shows: one checkpoint serves the body alone, and a model with another
head, whose new weights are the only ones that begin anew. A few seconds.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import torch
import training
from terminal import DemoFailed, exit_status, say, step
from torch import nn
from windlass import PretrainedConfig, PreTrainedModel

if TYPE_CHECKING:
    from training import Batch

BATCH, LENGTH, MASK, SEPARATOR = 32, 12, 0, 1
UNMASKED = -100  # What cross_entropy takes for "do not ask here".


class BertLikeConfig(PretrainedConfig):
    """What is to be known of a BERT-like model before its weights."""

    model_type = "bert-like"

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


class BertLikePreTrainedModel(PreTrainedModel):
    """What all models of the family share: the config, the prefix, how weights begin."""

    config_class = BertLikeConfig
    base_model_prefix = "bert"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()


class BertLikeModel(BertLikePreTrainedModel):
    """The body: ids → hidden states, each place seeing all others."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden_size,
                config.num_attention_heads,
                dim_feedforward=4 * config.hidden_size,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of words, which heads are tied to."""
        return self.words

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embeddings of words, as a resize does."""
        self.words = value  # type: ignore[assignment]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the hidden state at each place."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden: torch.Tensor = self.words(input_ids) + self.places(places)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class BertLikeForMaskedLM(BertLikePreTrainedModel):
    """The body with a head that says which word is behind a mask; it shares the words' weights."""

    _tied_weights_keys = ["decoder.weight"]  # noqa: RUF012  (as the API has it)

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__(config)
        self.bert = BertLikeModel(config)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the head, which is tied to the input embeddings."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head, as a resize does."""
        self.decoder = new_embeddings  # type: ignore[assignment]

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return how surprising the words behind the masks are."""
        scores = self.decoder(nn.functional.gelu(self.transform(self.bert(input_ids))))
        return nn.functional.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), ignore_index=UNMASKED
        )


class BertLikeForSequenceClassification(BertLikePreTrainedModel):
    """The same body with another head."""

    def __init__(self, config: BertLikeConfig) -> None:
        super().__init__(config)
        self.bert = BertLikeModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return a score for each label."""
        scores: torch.Tensor = self.classifier(self.bert(input_ids).mean(dim=1))
        return scores


def make_batch(generator: torch.Generator) -> Batch:
    """Make up sentences of one word said again and again, some of them behind masks."""
    word = torch.randint(SEPARATOR + 1, 64, (BATCH, 1), generator=generator)
    labels = word.expand(BATCH, LENGTH).clone()
    labels[:, LENGTH // 2] = SEPARATOR
    masked = torch.rand(BATCH, LENGTH, generator=generator) < 0.3  # noqa: PLR2004
    return {
        "input_ids": labels.masked_fill(masked, MASK),
        "labels": labels.masked_fill(~masked, UNMASKED),
    }


def reuse(trained: BertLikeForMaskedLM) -> None:
    """Load the trained checkpoint as a body alone, and with a new head."""
    step(5, "One checkpoint, other models")
    with tempfile.TemporaryDirectory(prefix="windlass-example-") as folder:
        trained.save_pretrained(folder)
        body = BertLikeModel.from_pretrained(folder)
        model, report = BertLikeForSequenceClassification.from_pretrained(
            folder, num_labels=3, output_loading_info=True
        )
    new = sorted(report["missing_keys"])
    say(f"as {type(model).__name__}: new are {', '.join(new)}")
    if new != ["classifier.bias", "classifier.weight"]:
        message = f"other weights than the new head's are new: {new}"
        raise DemoFailed(message)
    for other in (body, model.bert):
        if not torch.equal(other.words.weight, trained.bert.words.weight):
            message = f"{type(other).__name__} has other weights than the trained body"
            raise DemoFailed(message)
    say("The body has the trained weights in both.")


def main() -> None:
    """Run the example."""
    logging.basicConfig(format="   %(message)s", stream=sys.stdout)  # What windlass warns of.
    torch.manual_seed(0)
    reuse(training.run(BertLikeForMaskedLM(BertLikeConfig()), make_batch))


if __name__ == "__main__":
    sys.exit(exit_status(main))
