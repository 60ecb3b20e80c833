"""Configurations for both sides: the same classes over the one base and the other."""

from __future__ import annotations

from typing import Any, ClassVar


def config_classes(base: Any) -> dict[str, Any]:
    """Return classes of each kind that configurations come in, by name."""

    class Mapped(base):
        model_type = "mapped"
        attribute_map: ClassVar = {"hidden_size": "n_embd", "num_attention_heads": "n_head"}

        def __init__(
            self, n_embd: int = 8, n_head: int = 2, dropout: float = 0.1, **kwargs: Any
        ) -> None:
            self.n_embd = n_embd
            self.n_head = n_head
            self.dropout = dropout
            super().__init__(**kwargs)

    class Changed(base):
        """Has other defaults than the base."""

        model_type = "changed"

        def __init__(self, width: int = 4, **kwargs: Any) -> None:
            self.width = width
            super().__init__(**{"tie_word_embeddings": False, "max_length": 30, **kwargs})

    class Nested(base):
        model_type = "nested"

        def __init__(
            self, text: Any = None, vision: Any = None, depth: int = 1, **kwargs: Any
        ) -> None:
            super().__init__(**kwargs)
            self.text = Mapped(**(text or {}))
            self.vision = Changed(**(vision or {}))
            self.depth = depth

    class Deep(base):
        model_type = "deep"

        def __init__(self, inner: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = Nested(**(inner or {}))

    class Composed(base):
        """Cannot be without its parts."""

        model_type = "composed"
        is_composition = True

        def __init__(self, **kwargs: Any) -> None:
            if "decoder" not in kwargs:
                raise ValueError("a decoder is needed")
            decoder = kwargs.pop("decoder")
            super().__init__(**kwargs)
            self.decoder = Mapped(**decoder)

    return {
        "base": base,
        "mapped": Mapped,
        "changed": Changed,
        "nested": Nested,
        "deep": Deep,
        "composed": Composed,
    }


def describe_config(config: Any) -> dict[str, Any]:
    """Return what can be seen of a configuration, and what would be written of it."""
    return {
        "dict": config.to_dict(),
        "diff": config.to_diff_dict(),
        "json": config.to_json_string(),
        "whole json": config.to_json_string(use_diff=False),
        "names": sorted(config),
        "return_dict": config.use_return_dict,
        "labels": config.num_labels,
        "dtype": config.torch_dtype,
        "attention": config._attn_implementation,
        "name": config.name_or_path,
    }


def describe_generation(config: Any) -> dict[str, Any]:
    """Return what would be written of parameters of generation."""
    return {
        "dict": config.to_dict(),
        "diff": config.to_diff_dict(),
        "json": config.to_json_string(),
        "whole json": config.to_json_string(use_diff=False),
    }
