"""Options that are known and not there yet: each is refused, none is ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Option → what to do instead. Any value but None and False is refused.
_OPTIONS = {
    "from_tf": "TensorFlow checkpoints are not read yet; save the model as safetensors first",
    "from_flax": "Flax checkpoints are not read yet; save the model as safetensors first",
    "gguf_file": "GGUF files are not read yet; convert the file to safetensors first",
    "quantization_config": "quantised models are not loaded yet; load the model without it",
    "load_in_8bit": "quantised models are not loaded yet; load the model without it",
    "load_in_4bit": "quantised models are not loaded yet; load the model without it",
    "max_memory": "it divides a model among devices, which is not there yet; leave it out",
    "offload_folder": "weights are not offloaded to disk yet; leave it out",
    "offload_state_dict": "weights are not offloaded to disk yet; leave it out",
    "offload_buffers": "weights are not offloaded yet; leave it out",
    "adapter_kwargs": "adapters (PEFT) are not loaded yet; load them with the peft package",
    "tp_plan": "tensor parallelism is not there yet; leave it out",
}

#: Endings of files of other formats → option that is refused in their place.
_FORMATS = {
    ".index": "from_tf",
    ".h5": "from_tf",
    ".msgpack": "from_flax",
    ".gguf": "gguf_file",
}


def take_unsupported(kwargs: dict[str, Any]) -> None:
    """Take the options that are not there yet out of `kwargs`.

    Raises:
        NotSupported: one of them asks for something.
    """
    for name, hint in _OPTIONS.items():
        value = kwargs.pop(name, None)
        if value is not None and value is not False and value != {}:
            message = f"{name}={value!r}: {hint}"
            raise NotSupported(message)


def refuse_format(path: str) -> None:
    """Raise for a file of a format that is not read.

    Raises:
        NotSupported: TensorFlow, Flax or GGUF.
    """
    for ending, option in _FORMATS.items():
        if path.endswith(ending):
            message = f"`{path}`: {_OPTIONS[option]}"
            raise NotSupported(message)


def refuse_quantised(config: object) -> None:
    """Raise for the configuration of a quantised model.

    Raises:
        NotSupported: it has a `quantization_config`.
    """
    found = getattr(config, "quantization_config", None)
    if found is not None:
        method = found.get("quant_method") if isinstance(found, dict) else type(found).__name__
        message = (
            f"the configuration says that the weights are quantised ({method}): "
            f"{_OPTIONS['quantization_config']}"
        )
        raise NotSupported(message)


def hint_at_formats(names: Mapping[str, object] | set[str]) -> str:
    """Say which files of a folder are of formats that are not read, if there are any."""
    found = sorted(name for name in names if name.endswith((".h5", ".msgpack", ".gguf", ".index")))
    return f" It holds {found}, of formats that are not read yet." if found else ""
