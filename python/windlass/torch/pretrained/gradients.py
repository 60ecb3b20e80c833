"""Gradients: checkpointing of activations, and inputs that pass a gradient on."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch.utils.hooks import RemovableHandle


class GradientMethods(nn.Module):
    """What `PreTrainedModel` does about gradients."""

    supports_gradient_checkpointing: ClassVar[bool] = False
    _require_grads_hook: RemovableHandle | None = None

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Compute activations again in the backward pass instead of keeping them.

        Modules that have an attribute `gradient_checkpointing` get it set, and the function to call
        as `_gradient_checkpointing_func`.

        Args:
            gradient_checkpointing_kwargs: for `torch.utils.checkpoint.checkpoint`; by default
                `{"use_reentrant": True}`.

        Raises:
            ValueError: the class, or all of its modules, cannot.
        """
        if not self.supports_gradient_checkpointing:
            message = (
                f"{type(self).__name__} does not support gradient checkpointing: it does not set "
                "supports_gradient_checkpointing"
            )
            raise ValueError(message)
        options = gradient_checkpointing_kwargs or {"use_reentrant": True}
        if self._has_old_setter():
            self._set_by_old_setter(value=True)
        else:
            function = functools.partial(checkpoint, **options)
            self._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=function)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        if not self.supports_gradient_checkpointing:
            return
        if self._has_old_setter():
            self._set_by_old_setter(value=False)
        else:
            self._set_gradient_checkpointing(enable=False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any module computes its activations again in the backward pass."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,  # noqa: FBT001, FBT002  (the signature that subclasses override)
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
    ) -> None:
        able = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        if not able:
            message = (
                f"no module of {type(self).__name__} can be checkpointed: each that can should "
                "have an attribute `gradient_checkpointing`"
            )
            raise ValueError(message)
        for module in able:
            module._gradient_checkpointing_func = gradient_checkpointing_func  # type: ignore[assignment]
            module.gradient_checkpointing = enable  # type: ignore[assignment]

    def _has_old_setter(self) -> bool:
        """Whether a subclass overrides the setter in its form before 4.35: `(module, value)`."""
        return "value" in inspect.signature(self._set_gradient_checkpointing).parameters

    def _set_by_old_setter(self, *, value: bool) -> None:
        setter: Any = self._set_gradient_checkpointing
        self.apply(functools.partial(setter, value=value))
        message = (
            f"{type(self).__name__} overrides _set_gradient_checkpointing in its old form, which "
            "takes no gradient_checkpointing_kwargs: remove that method"
        )
        warnings.warn(message, FutureWarning, stacklevel=3)

    def _take_configured_checkpointing(self) -> None:
        """Do what `gradient_checkpointing` in the configuration asks for, and take it out there."""
        config: Any = self.config
        if self.supports_gradient_checkpointing and getattr(
            config, "gradient_checkpointing", False
        ):
            self.gradient_checkpointing_enable()
            del config.gradient_checkpointing

    def enable_input_require_grads(self) -> None:
        """Let what the input embeddings put out require a gradient, while they are frozen.

        Adapters further up need that. A second call replaces the first.
        """
        self.disable_input_require_grads()

        def require(_: nn.Module, __: object, output: torch.Tensor) -> None:
            output.requires_grad_(True)  # noqa: FBT003

        model: Any = self
        embeddings: nn.Module = model.get_input_embeddings()
        self._require_grads_hook = embeddings.register_forward_hook(require)

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        if self._require_grads_hook is not None:
            self._require_grads_hook.remove()
            self._require_grads_hook = None
