"""`PreTrainedModel`, in parts: loading, saving, ties, vocabulary, gradients, attention."""

from __future__ import annotations

from windlass.torch.pretrained.model import PreTrainedModel

__all__ = ["PreTrainedModel"]
