"""Moves and casts that a quantised model does not survive, and other formats of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch
from torch import nn

from windlass.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable


def _needs_adapters(name: str) -> Callable[..., NoReturn]:
    """Return the method `name`, which refuses."""

    def refuse(self: nn.Module, *args: object, **kwargs: object) -> NoReturn:
        """Work with adapters (PEFT), which is not there yet.

        Raises:
            NotSupported: always.
        """
        del self, args, kwargs
        hint = "the peft package wraps a model itself"
        message = f"{name}: adapters (PEFT) are not there yet; {hint}"
        raise NotSupported(message)

    refuse.__name__, refuse.__qualname__ = name, f"GuardMethods.{name}"
    return refuse


class GuardMethods(nn.Module):
    """Moves and casts of a `PreTrainedModel`."""

    def to(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401
        """Move or cast the model, as `torch.nn.Module.to` does.

        Raises:
            ValueError: a quantised model cannot be cast, or not be moved.
        """
        method = _quantisation(self)
        wants_dtype = "dtype" in kwargs or any(isinstance(one, torch.dtype) for one in args)
        if method is not None and (wants_dtype or method != "gptq"):
            _refuse("to", method)
        return super().to(*args, **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401
        """Move the model to a GPU.

        Raises:
            ValueError: a quantised model is where it has to be.
        """
        method = _quantisation(self)
        if method is not None and method != "gptq":
            _refuse("cuda", method)
        return super().cuda(*args, **kwargs)

    def half(self, *args: Any) -> Self:  # noqa: ANN401
        """Cast the model to float16.

        Raises:
            ValueError: the model is quantised.
        """
        if getattr(self, "is_quantized", False):
            _refuse("half", _quantisation(self) or "quantised")
        return super().half(*args)

    def float(self, *args: Any) -> Self:  # noqa: ANN401
        """Cast the model to float32.

        Raises:
            ValueError: the model is quantised.
        """
        if getattr(self, "is_quantized", False):
            _refuse("float", _quantisation(self) or "quantised")
        return super().float(*args)

    def dequantize(self) -> NoReturn:
        """Undo a quantisation, which no model loaded here has.

        Raises:
            ValueError: always: the model is not quantised.
        """
        message = f"{type(self).__name__} is not quantised"
        raise ValueError(message)

    def to_bettertransformer(self) -> NoReturn:
        """Convert to torch's fused attention through the package optimum, which is not there yet.

        Raises:
            NotSupported: always. `attn_implementation="sdpa"` does what it did.
        """
        message = 'to_bettertransformer: not there yet; attn_implementation="sdpa" does what it did'
        raise NotSupported(message)

    def reverse_bettertransformer(self) -> NoReturn:
        """Undo `to_bettertransformer`.

        Raises:
            NotSupported: always.
        """
        message = "reverse_bettertransformer: not there yet, nor is to_bettertransformer"
        raise NotSupported(message)

    active_adapters = _needs_adapters("active_adapters")
    load_adapter = _needs_adapters("load_adapter")
    add_adapter = _needs_adapters("add_adapter")
    set_adapter = _needs_adapters("set_adapter")
    enable_adapters = _needs_adapters("enable_adapters")
    disable_adapters = _needs_adapters("disable_adapters")
    active_adapter = _needs_adapters("active_adapter")
    get_adapter_state_dict = _needs_adapters("get_adapter_state_dict")


def _quantisation(model: nn.Module) -> str | None:
    method = getattr(model, "quantization_method", None)
    return None if method is None else str(getattr(method, "value", method)).lower()


def _refuse(method: str, quantisation: str) -> NoReturn:
    message = (
        f"a model quantised by {quantisation} has its dtype and device: `{method}` is not for it"
    )
    raise ValueError(message)
