"""Small models, written once for any pair of base classes: ours, or transformers'."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional


def make_models(config_base: Any, model_base: Any) -> SimpleNamespace:  # noqa: C901  (classes)
    """Return a configuration and models: a base, and two with a head."""

    class TinyConfig(config_base):
        model_type = "tiny"

        def __init__(
            self,
            vocab_size: int = 11,
            hidden_size: int = 6,
            num_layers: int = 2,
            head_bias: bool = False,  # noqa: FBT001, FBT002
            initializer_range: float = 0.02,
            **kwargs: Any,
        ) -> None:
            super().__init__(**kwargs)
            self.vocab_size = vocab_size
            self.hidden_size = hidden_size
            self.num_layers = num_layers
            self.head_bias = head_bias
            self.initializer_range = initializer_range

    class Block(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.LayerNorm = nn.LayerNorm(config.hidden_size)
            self.gradient_checkpointing = False

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.LayerNorm(states + functional.gelu(self.dense(states)))

    class TinyPreTrained(model_base):
        config_class = TinyConfig
        base_model_prefix = "tiny"
        supports_gradient_checkpointing = True
        _supports_sdpa = True
        _no_split_modules: ClassVar = ["Block"]

        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.data.normal_(0.0, self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                module.bias.data.zero_()
            if isinstance(module, nn.LayerNorm):
                module.weight.data.fill_(1.0)

    class TinyModel(TinyPreTrained):
        def __init__(self, config: Any, extra: str | None = None) -> None:
            super().__init__(config)
            self.extra = extra
            self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
            self.gain = nn.Parameter(torch.full((config.hidden_size,), 0.5))
            self.register_buffer("steps", torch.tensor([3, 4]))
            self.register_buffer("positions", torch.arange(7), persistent=False)
            self.post_init()

        def get_input_embeddings(self) -> nn.Module:
            return self.embed

        def set_input_embeddings(self, value: nn.Module) -> None:
            self.embed = value

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            states = self.embed(input_ids) * self.gain
            for layer in self.layers:
                states = layer(states)
            return states

    class TinyForTokens(TinyPreTrained):
        _tied_weights_keys: ClassVar = ["lm_head.weight"]

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.tiny = TinyModel(config)
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
            self.post_init()

        def get_output_embeddings(self) -> nn.Module:
            return self.lm_head

        def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
            self.lm_head = new_embeddings

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.lm_head(self.tiny(input_ids))

    class TinyForLabels(TinyPreTrained):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.tiny = TinyModel(config)
            self.dropout = nn.Dropout(0.5)
            self.classifier = nn.Linear(config.hidden_size, config.num_labels)
            self.post_init()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.dropout(self.tiny(input_ids).mean(1)))

    kinds = (TinyConfig, TinyModel, TinyForTokens, TinyForLabels)
    return SimpleNamespace(**{kind.__name__: kind for kind in kinds})
