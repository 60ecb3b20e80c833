"""The fields of a configuration as plain data: what every model has, what differs, what is text.

Pure: dictionaries in, dictionaries out.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, TypeGuard

from windlass.dtype_names import name_of
from windlass.errors import InvalidConfig

if TYPE_CHECKING:
    from windlass.config import PretrainedConfig

#: Fields of every configuration, in the order in which it has them, with their defaults.
FIRST_FIELDS: dict[str, Any] = {
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "torchscript": False,
    "torch_dtype": None,
    "use_bfloat16": False,
    "tf_legacy_loss": False,
    "pruned_heads": {},
    "tie_word_embeddings": True,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "is_decoder": False,
    "cross_attention_hidden_size": None,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
}

#: Parameters of generation that configurations had before there was a `GenerationConfig`.
GENERATION_FIELDS: dict[str, Any] = {
    "max_length": 20,
    "min_length": 0,
    "do_sample": False,
    "early_stopping": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "num_return_sequences": 1,
    "output_scores": False,
    "return_dict_in_generate": False,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}

TOKENIZER_FIELDS = (
    "tokenizer_class",
    "prefix",
    "bos_token_id",
    "pad_token_id",
    "eos_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "task_specific_params",
)

#: Fields that say something of this object, and not of the model.
UNWRITTEN = ("_auto_class", "_commit_hash", "_attn_implementation_internal")

_TRUE, _FALSE = ("true", "1", "y", "yes"), ("false", "0", "n", "no")


def write_dtype_names(fields: dict[str, Any]) -> None:
    """Replace each dtype under `torch_dtype` by its name, here and in dictionaries within."""
    if fields.get("torch_dtype") is not None:
        fields["torch_dtype"] = name_of(fields["torch_dtype"])
    for value in fields.values():
        if isinstance(value, dict):
            write_dtype_names(value)


def find_differences(config: PretrainedConfig, base: dict[str, Any]) -> dict[str, Any]:
    """Return the fields in which a configuration differs from those without any value given.

    Args:
        config: the configuration.
        base: fields of a `PretrainedConfig()`.
    """
    own = {} if config.is_composition else default_fields(type(config))
    written = {}
    for key, value in config.to_dict().items():
        part = vars(config).get(key)  # As an attribute, a dtype would import torch.
        if _is_config(part) and isinstance(own.get(key), dict):
            differing = _differing_part(part, value, own[key])
            if "model_type" in value:
                differing["model_type"] = value["model_type"]
            if differing:
                written[key] = differing
        elif _is_told(key, value, base, own):
            written[key] = value
    return written


def default_fields(kind: type[PretrainedConfig]) -> dict[str, Any]:
    """Return the fields of a class without any value given; none if it needs some."""
    return kind().to_dict() if can_be_default(kind) else {}


def can_be_default(kind: type[PretrainedConfig]) -> bool:
    """Whether a class can be made without arguments."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not one.empty or one.kind in optional for one in parameters)


def parse_like(key: str, text: str, like: object) -> bool | int | float | str:
    """Return a text as a value of the kind that a field has now.

    Raises:
        InvalidConfig: the text is none of that kind (also a ValueError).
        TypeError: the field has a value that no text is read as.
    """
    if isinstance(like, bool):
        return _parse_bool(key, text)
    if isinstance(like, str):
        return text
    if not isinstance(like, int | float):
        kind = type(like).__name__
        message = f"{key}: expected a field of bool, int, float or text, found {kind}"
        raise TypeError(message)
    try:
        return type(like)(text)
    except ValueError as error:
        message = f"{key}: expected text for {type(like).__name__}, found {text!r}"
        raise InvalidConfig(message) from error


def to_json(fields: dict[str, Any]) -> str:
    """Return fields as the text of a file: sorted, indented by two, with a newline at the end."""
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _is_told(key: str, value: object, base: dict[str, Any], own: dict[str, Any]) -> bool:
    if key == "transformers_version" or key not in base or value != base[key]:
        return True
    return key in own and value != own[key]


def _differing_part(
    part: PretrainedConfig, fields: dict[str, Any], usual: dict[str, Any]
) -> dict[str, Any]:
    """Return fields of a nested configuration that differ from its place's or its class's."""
    own = default_fields(type(part))
    differing = {}
    for key, value in fields.items():
        within = vars(part).get(key)
        if _is_config(within) and isinstance(usual.get(key), dict):
            if deeper := _differing_part(within, value, usual[key]):
                differing[key] = deeper
        elif key not in usual or value != usual[key] or key not in own or value != own[key]:
            differing[key] = value
    return differing


def _is_config(value: object) -> TypeGuard[PretrainedConfig]:
    from windlass.config import PretrainedConfig

    return isinstance(value, PretrainedConfig)


def _parse_bool(key: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    message = f"{key}: expected one of {', '.join(_TRUE + _FALSE)}, found {text!r}"
    raise InvalidConfig(message)
