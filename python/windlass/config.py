"""`PretrainedConfig`: what a model is made of, in a `config.json` that transformers reads too."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from windlass.config_fields import FIRST_FIELDS, GENERATION_FIELDS, TOKENIZER_FIELDS
from windlass.config_storage import StoredConfig
from windlass.dtype_names import DtypeName, dtype_of
from windlass.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
#: Names under which a configuration may have that of a text model; the first is no decoder.
_TEXT_CONFIGS = ("text_encoder", "decoder", "generator", "text_config")


class PretrainedConfig(StoredConfig):
    """Base of the configurations of models, as `transformers.PretrainedConfig` 4.46 is.

    Subclass it: take the model's own values in `__init__`, and hand the rest to this one, which
    keeps whatever it does not know.

    Attributes:
        model_type: what the model is called; is written to the file.
        is_composition: whether it is made of other configurations, and cannot be without.
        attribute_map: other names of attributes → their names.
        keys_to_ignore_at_inference: outputs of the model that are left out of predictions.
        torch_dtype: dtype of the weights. A name that a file or the caller gave is a
            `torch.dtype` when it is read; torch is imported then, and not before.

    Args:
        name_or_path: where it comes from.
        num_labels: number of labels of a classifier, if `id2label` is not given; 2 by default.
        id2label: name of each label; keys become integers.
        label2id: number of each name.
        problem_type: `"regression"`, `"single_label_classification"` or
            `"multi_label_classification"`.
        attn_implementation: which attention the model computes with; is not written.
        kwargs: the fields of every model (`output_hidden_states`, `output_attentions`,
            `return_dict`, `is_encoder_decoder`, `is_decoder`, `tie_word_embeddings`,
            `pruned_heads`, `torchscript`, `torch_dtype`, `architectures`, ids of tokens, old
            parameters of generation, …), and others, which become attributes.

    Raises:
        InvalidConfig: labels are no dictionary, or `problem_type` is none.
        UnknownDtype: `torch_dtype` is a name that no dtype of torch has.

    Example:
        >>> class TinyConfig(PretrainedConfig):
        ...     model_type = "tiny"
        ...     def __init__(self, width=8, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.width = width
        >>> config = TinyConfig(width=16, id2label={0: "no", 1: "yes"}, mood="good")
        >>> config.num_labels, config.mood
        (2, 'good')
        >>> print(config.to_json_string(), end="")
        {
          "id2label": {
            "0": "no",
            "1": "yes"
          },
          "label2id": null,
          "model_type": "tiny",
          "mood": "good",
          "transformers_version": "4.46.3",
          "width": 16
        }
    """

    model_type: str = ""
    is_composition: bool = False
    attribute_map: ClassVar[dict[str, str]] = {}
    keys_to_ignore_at_inference: ClassVar[list[str]]

    id2label: dict[int, str]
    label2id: dict[str, int] | None
    return_dict: bool
    torchscript: bool

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        given = kwargs
        for name, default in {**FIRST_FIELDS, **GENERATION_FIELDS}.items():
            setattr(self, name, given.pop(name, copy.copy(default)))
        if isinstance(self.torch_dtype, str):
            self.torch_dtype = DtypeName(self.torch_dtype)
        self.architectures = given.pop("architectures", None)
        self.finetuning_task = given.pop("finetuning_task", None)
        self._take_labels(given)
        for name in TOKENIZER_FIELDS:
            setattr(self, name, given.pop(name, None))
        self.problem_type = _checked_problem(given.pop("problem_type", None))
        if given.pop("xla_device", None) is not None:
            logger.warning("xla_device has no effect; it can be taken out of the config")
        self._name_or_path = str(given.pop("name_or_path", ""))
        self._commit_hash = given.pop("_commit_hash", None)
        self._attn_implementation_internal = given.pop("attn_implementation", None)
        self._attn_implementation_autoset = False
        self.transformers_version = given.pop("transformers_version", None)
        if given.get("gradient_checkpointing", False):
            _warn_of_checkpointing()
        for name, value in given.items():
            setattr(self, name, value)

    def __setattr__(self, key: str, value: object) -> None:
        super().__setattr__(type(self).attribute_map.get(key, key), value)

    def __getattribute__(self, key: str) -> Any:  # noqa: ANN401
        names = type(self).attribute_map
        return super().__getattribute__(names.get(key, key) if names else key)

    if TYPE_CHECKING:

        def __getattr__(self, key: str) -> Any: ...  # noqa: ANN401  (fields of subclasses and files)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PretrainedConfig):
            return False
        return _with_dtype_name(self.__dict__) == _with_dtype_name(other.__dict__)

    __hash__ = None  # type: ignore[assignment]  # It can change.

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all fields."""
        yield from self.__dict__

    @property
    def torch_dtype(self) -> Any:  # noqa: ANN401  (a torch.dtype: this module knows no torch)
        """The dtype of the weights, as it was given; a name given at the start, as a dtype."""
        if "torch_dtype" not in self.__dict__:
            message = f"{type(self).__name__!r} object has no attribute 'torch_dtype'"
            raise AttributeError(message)
        value = self.__dict__["torch_dtype"]
        return dtype_of(value) if isinstance(value, DtypeName) else value

    @torch_dtype.setter
    def torch_dtype(self, value: object) -> None:
        self.__dict__["torch_dtype"] = value

    @property
    def name_or_path(self) -> str:
        """Where the configuration comes from: a folder, or an id of the hub."""
        return getattr(self, "_name_or_path", None)  # type: ignore[return-value]

    @name_or_path.setter
    def name_or_path(self, value: object) -> None:
        self._name_or_path = str(value)

    @property
    def use_return_dict(self) -> bool:
        """Whether models return dictionaries: not where they are traced."""
        return self.return_dict and not self.torchscript

    @property
    def num_labels(self) -> int:
        """How many labels a classifier has. Another number gives them new names."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        labels = getattr(self, "id2label", None)
        if labels is None or len(labels) != num_labels:
            self.id2label = {number: f"LABEL_{number}" for number in range(num_labels)}
            self.label2id = {name: number for number, name in self.id2label.items()}

    @property
    def _attn_implementation(self) -> Any:  # noqa: ANN401  (a name, or names by part)
        chosen = getattr(self, "_attn_implementation_internal", None)
        return "eager" if chosen is None else chosen

    @_attn_implementation.setter
    def _attn_implementation(self, value: object) -> None:
        self._attn_implementation_internal = value

    def get_text_config(self, decoder: bool = False) -> PretrainedConfig:  # noqa: FBT001, FBT002
        """Return the configuration of the text model within this one, or this one itself.

        Args:
            decoder: look for that of a decoder only.

        Raises:
            InvalidConfig: there are several.
        """
        names = _TEXT_CONFIGS[1:] if decoder else _TEXT_CONFIGS
        found = [name for name in names if getattr(self, name, None) is not None]
        if len(found) > 1:
            message = f"expected one text config within the config, found {found}; take one by name"
            raise InvalidConfig(message)
        return getattr(self, found[0]) if found else self

    def _take_labels(self, given: dict[str, Any]) -> None:
        self.label2id = _checked_labels("label2id", given.pop("label2id", None))
        labels = _checked_labels("id2label", given.pop("id2label", None))
        if labels is None:
            self.num_labels = given.pop("num_labels", 2)
            return
        self.id2label = {_label_number(key): name for key, name in labels.items()}
        count = given.pop("num_labels", None)
        if count is not None and count != len(labels):
            logger.warning(
                "num_labels is %s, but id2label has %s, which counts", count, len(labels)
            )


def _checked_labels(name: str, labels: object) -> Any:  # noqa: ANN401  (a dictionary, or None)
    if labels is not None and not isinstance(labels, dict):
        message = f"{name}: expected a dictionary, found {type(labels).__name__}"
        raise InvalidConfig(message)
    return labels


def _label_number(key: object) -> int:
    try:
        return int(key)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError) as error:
        message = f"id2label: expected numbers as keys, found {key!r}"
        raise InvalidConfig(message) from error


def _checked_problem(problem: str | None) -> str | None:
    if problem is not None and problem not in _PROBLEM_TYPES:
        message = f"problem_type: expected one of {', '.join(_PROBLEM_TYPES)}, found {problem!r}"
        raise InvalidConfig(message)
    return problem


def _with_dtype_name(fields: dict[str, Any]) -> dict[str, Any]:
    dtype = fields.get("torch_dtype")
    return {**fields, "torch_dtype": dtype_of(dtype) if isinstance(dtype, DtypeName) else dtype}


def _warn_of_checkpointing() -> None:
    message = (
        "gradient_checkpointing in a config is deprecated, "
        "call `model.gradient_checkpointing_enable()`"
    )
    warnings.warn(message, UserWarning, stacklevel=3)
