"""The loaders that may meet a folder while it is saved to, and what each of them finds there."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
import windlass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = "old", "new"
SIGNS = {OLD: 1, NEW: -1}


class Loaders:
    """A tiny BERT, and all ways to load it; see `builders.saver` for what is in the folders."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What transformers warns of is not our business.
            import huggingface_hub
            import transformers
        transformers.utils.logging.disable_progress_bar()
        self._config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
        self._bert = transformers.BertModel
        self._model = self.new_model()
        self._fill: dict[str, Callable[[torch.nn.Module, Path], object]] = {
            "windlass.load_torch_model": _strictly(windlass.load_torch_model),
            "windlass.load_sharded_checkpoint": windlass.load_sharded_checkpoint,
            "huggingface_hub.load_torch_model": _strictly(huggingface_hub.load_torch_model),
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the model."""
        return {name: tuple(one.shape) for name, one in self._model.state_dict().items()}

    def new_model(self) -> torch.nn.Module:
        """Return a model of no value that is saved."""
        torch.manual_seed(0)
        model: torch.nn.Module = self._bert(self._config)
        return model

    def write_config(self, folder: Path) -> None:
        """Write what transformers wants to know beside the weights."""
        self._config.save_pretrained(folder)

    def judge(self, folder: Path) -> dict[str, str]:
        """Return what each loader finds in a folder: old, new, or what is wrong with it."""
        verdicts = {name: self._verdict(fill, folder) for name, fill in self._fill.items()}
        return verdicts | {"from_pretrained": self._judge_pretrained(folder)}

    def _verdict(self, fill: Callable[[torch.nn.Module, Path], object], folder: Path) -> str:
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.fill_(torch.nan)
        try:
            fill(self._model, folder)
        except Exception as error:  # noqa: BLE001  (told in the verdict)
            return f"{type(error).__name__}: {error}"
        return which(self._model)

    def _judge_pretrained(self, folder: Path) -> str:
        try:
            model = self._bert.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}"
        return which(model)


def which(model: torch.nn.Module) -> str:
    """Say whether all weights of a model are old, or all new."""
    found = set()
    for number, (name, tensor) in enumerate(model.state_dict().items(), start=1):
        full = [word for word, sign in SIGNS.items() if bool((tensor == sign * number).all())]
        if not full:
            return f"`{name}` is neither"
        found.update(full)
    return found.pop() if len(found) == 1 else "a mixture"


def _strictly(load: Any) -> Callable[[torch.nn.Module, Path], object]:
    return lambda model, folder: load(model, folder, strict=True)
