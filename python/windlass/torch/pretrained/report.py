"""What a load found: names missing, unexpected and of another shape, and how the log says it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadingReport:
    """Names are those of the checkpoint, sorted.

    Attributes:
        missing_keys: names that the model has and the checkpoint lacks.
        unexpected_keys: names that the checkpoint has and the model lacks.
        mismatched_keys: `(name, shape in the checkpoint, shape in the model)`, with
            `ignore_mismatched_sizes=True`; without it they are an error.
        error_msgs: always empty: what would be here is an error.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]
    mismatched_keys: list[tuple[str, Any, Any]]
    error_msgs: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, list[Any]]:
        """Return it as `output_loading_info=True` hands it out."""
        return {
            "missing_keys": self.missing_keys,
            "unexpected_keys": self.unexpected_keys,
            "mismatched_keys": self.mismatched_keys,
            "error_msgs": self.error_msgs,
        }

    def log(self, model: str, checkpoint: object, *, is_same_architecture: bool) -> None:
        """Say what does not fit as warnings, and that everything fits at INFO.

        Args:
            model: name of the model's class.
            checkpoint: where the weights came from.
            is_same_architecture: whether the checkpoint was saved from that class: then unused
                weights are a surprise, and otherwise they are not.
        """
        if self.unexpected_keys:
            level = logging.WARNING if is_same_architecture else logging.INFO
            logger.log(
                level,
                "%s has no place for these weights of `%s`, which were not loaded: %s",
                model,
                checkpoint,
                self.unexpected_keys,
            )
        if self.missing_keys:
            logger.warning(
                "%s has weights that `%s` lacks. They were newly initialised, and should be "
                "trained before the model is used: %s",
                model,
                checkpoint,
                self.missing_keys,
            )
        if self.mismatched_keys:
            shapes = "; ".join(
                f"`{name}`: {list(found)} in the checkpoint, {list(expected)} in the model"
                for name, found, expected in self.mismatched_keys
            )
            logger.warning(
                "%s has weights of other shapes than `%s`. They were newly initialised, and should "
                "be trained before the model is used: %s",
                model,
                checkpoint,
                shapes,
            )
        if not (self.unexpected_keys or self.missing_keys or self.mismatched_keys):
            logger.info("all weights of %s were loaded from `%s`", model, checkpoint)
