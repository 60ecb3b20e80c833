"""Moves and casts that a quantised model does not survive, and other formats of attention."""

from __future__ import annotations

from typing import Any, NoReturn, Self

import torch
from torch import nn

from windlass.errors import NotSupported


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

    def active_adapters(self) -> NoReturn:
        """Return the names of active adapters (PEFT), which are not there yet.

        Raises:
            NotSupported: always.
        """
        _refuse_adapters("active_adapters")

    def load_adapter(self, *args: object, **kwargs: object) -> NoReturn:
        """Load an adapter (PEFT), which is not there yet.

        Raises:
            NotSupported: always.
        """
        del args, kwargs
        _refuse_adapters("load_adapter")

    def add_adapter(self, *args: object, **kwargs: object) -> NoReturn:
        """Add an adapter (PEFT), which is not there yet.

        Raises:
            NotSupported: always.
        """
        del args, kwargs
        _refuse_adapters("add_adapter")

    def set_adapter(self, *args: object, **kwargs: object) -> NoReturn:
        """Make an adapter (PEFT) the active one, which is not there yet.

        Raises:
            NotSupported: always.
        """
        del args, kwargs
        _refuse_adapters("set_adapter")

    def enable_adapters(self) -> NoReturn:
        """Use the adapters (PEFT), which are not there yet.

        Raises:
            NotSupported: always.
        """
        _refuse_adapters("enable_adapters")

    def disable_adapters(self) -> NoReturn:
        """Leave the adapters (PEFT) unused, which are not there yet.

        Raises:
            NotSupported: always.
        """
        _refuse_adapters("disable_adapters")

    def active_adapter(self) -> NoReturn:
        """Return the name of the active adapter (PEFT), which is not there yet.

        Raises:
            NotSupported: always.
        """
        _refuse_adapters("active_adapter")

    def get_adapter_state_dict(self, *args: object, **kwargs: object) -> NoReturn:
        """Return the weights of an adapter (PEFT), which is not there yet.

        Raises:
            NotSupported: always.
        """
        del args, kwargs
        _refuse_adapters("get_adapter_state_dict")


def _quantisation(model: nn.Module) -> str | None:
    method = getattr(model, "quantization_method", None)
    return None if method is None else str(getattr(method, "value", method)).lower()


def _refuse(method: str, quantisation: str) -> NoReturn:
    message = (
        f"a model quantised by {quantisation} has its dtype and device: `{method}` is not for it"
    )
    raise ValueError(message)


def _refuse_adapters(method: str) -> NoReturn:
    message = f"{method}: adapters (PEFT) are not there yet; the peft package wraps a model itself"
    raise NotSupported(message)
