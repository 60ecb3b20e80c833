"""`GenerationConfig`: parameters of text generation, kept in a `generation_config.json`.

windlass does not generate: it keeps these values, and reads and writes them as transformers does.
"""

from __future__ import annotations

import copy
import logging
import os
from typing import TYPE_CHECKING, Any

from windlass.config_fields import to_json, write_dtype_names
from windlass.config_file import (
    FORMAT_VERSION,
    GENERATION_CONFIG_FILE,
    read_config,
    take_place,
)
from windlass.errors import SaveFailed
from windlass.spellings import take_token
from windlass.text_files import write_text

if TYPE_CHECKING:
    from windlass.config import PretrainedConfig
    from windlass.types import PathLike

logger = logging.getLogger(__name__)

_DEFAULTS: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "early_stopping": False,
    "max_time": None,
    "stop_strings": None,
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "dola_layers": None,
    "use_cache": True,
    "cache_implementation": None,
    "cache_config": None,
    "return_legacy_cache": None,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "diversity_penalty": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "force_words_ids": None,
    "renormalize_logits": False,
    "constraints": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_decoder_ids": None,
    "sequence_bias": None,
    "token_healing": False,
    "guidance_scale": None,
    "low_memory": None,
    "watermarking_config": None,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": None,
    "return_dict_in_generate": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "encoder_no_repeat_ngram_size": 0,
    "decoder_start_token_id": None,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "prompt_lookup_num_tokens": None,
    "max_matching_ngram_size": None,
    "generation_kwargs": {},
}

#: Outputs that `generate` only returns in a dictionary.
_EXTRA_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")

#: Fields that say where the values come from.
_ORIGIN = ("_from_model_config", "_commit_hash", "transformers_version")


class GenerationConfig:
    """Parameters of `generate`, as `transformers.GenerationConfig` 4.46 has them.

    Args:
        kwargs: parameters by name; those that are not given have their defaults, and others become
            attributes. Values are not checked against each other: whoever generates does that.

    Example:
        >>> config = GenerationConfig(do_sample=True, top_k=5)
        >>> config.top_k, config.num_beams
        (5, 1)
        >>> config.to_diff_dict()
        {'do_sample': True, 'top_k': 5, 'transformers_version': '4.46.3'}
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        for name, default in _DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, copy.copy(default)))
        self.is_assistant = False
        self._from_model_config = kwargs.pop("_from_model_config", False)
        self._commit_hash = kwargs.pop("_commit_hash", None)
        self.transformers_version = kwargs.pop("transformers_version", FORMAT_VERSION)
        if not self._from_model_config:  # A model's other fields are none of generation.
            for name, value in kwargs.items():
                setattr(self, name, value)

    if TYPE_CHECKING:

        def __getattr__(self, key: str) -> Any: ...  # noqa: ANN401  (the parameters)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return False
        return self._describe(use_diff=False) == other._describe(use_diff=False)

    def __hash__(self) -> int:
        return hash(self._describe(use_diff=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self._describe(use_diff=True)}"

    @classmethod
    def from_pretrained(  # noqa: PLR0917  (the signature that it replaces)
        cls,
        pretrained_model_name: PathLike,
        config_file_name: PathLike | None = None,
        cache_dir: PathLike | None = None,
        force_download: bool = False,  # noqa: FBT001, FBT002
        local_files_only: bool = False,  # noqa: FBT001, FBT002
        token: str | bool | None = None,  # noqa: FBT001
        revision: str = "main",
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401  (with `return_unused_kwargs`, a pair)
        """Return the parameters in a folder or a repository of the hub.

        Args:
            pretrained_model_name: a folder with a `generation_config.json`, or the id of a
                repository.
            config_file_name: another name of the file.
            cache_dir: folder of the hub's cache.
            force_download: fetch again what is cached.
            local_files_only: take only what is cached.
            token: a token for the hub.
            revision: branch, tag or commit.
            kwargs: values that replace those of the file. Besides, `subfolder`, `proxies`,
                `resume_download` (deprecated), and `return_unused_kwargs`, to be given an empty
                dictionary too: every other argument becomes an attribute.

        Raises:
            ConfigNotFound: there is no such file.
            InvalidConfigFile: it is not JSON, or not an object.
            HubError: the hub does not give it.
        """
        kwargs["token"] = take_token(token, kwargs.pop("use_auth_token", None))
        place = take_place(
            {
                "cache_dir": cache_dir,
                "force_download": force_download,
                "local_files_only": local_files_only,
                "revision": revision,
            }
        )
        place |= take_place(kwargs)
        name = os.fspath(config_file_name or GENERATION_CONFIG_FILE)
        fields, found = read_config(
            pretrained_model_name, name, place, kwargs.pop("_commit_hash", None)
        )
        return cls.from_dict({**fields, "_commit_hash": found.commit}, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:  # noqa: ANN401
        """Return parameters made of fields.

        Args:
            config_dict: the fields; it is not changed.
            kwargs: values that replace them; `return_unused_kwargs` as for `from_pretrained`.
        """
        is_pair = kwargs.pop("return_unused_kwargs", False)
        for name in ("_from_auto", "_from_pipeline"):
            kwargs.pop(name, None)
        if "_commit_hash" in kwargs and "_commit_hash" in config_dict:
            kwargs["_commit_hash"] = config_dict["_commit_hash"]
        config = cls(**{**config_dict, **kwargs})
        unused = config.update(**kwargs)
        logger.info("generation config %s", config)
        return (config, unused) if is_pair else config

    @classmethod
    def from_model_config(cls, model_config: PretrainedConfig) -> GenerationConfig:
        """Return the parameters that an old configuration of a model holds.

        Args:
            model_config: the configuration. Where it has that of a decoder, this one's count for
                what its own leave at the defaults.

        Raises:
            InvalidConfig: it has several.
        """
        fields = {
            name: value for name, value in model_config.to_dict().items() if value is not None
        }
        fields.pop("_from_model_config", None)
        config: GenerationConfig = cls.from_dict(fields, _from_model_config=True)
        decoder = model_config.get_text_config(decoder=True)
        if decoder is not model_config:
            config._take_unset(decoder.to_dict())
        if config.return_dict_in_generate is False:
            shows_more = any(getattr(config, name) for name in _EXTRA_OUTPUTS)
            config.update(return_dict_in_generate=shows_more)
        return config

    def save_pretrained(
        self,
        save_directory: PathLike,
        config_file_name: PathLike | None = None,
    ) -> None:
        """Write `generation_config.json` into a folder, which is made if it does not exist.

        Args:
            save_directory: the folder.
            config_file_name: another name of the file.

        Raises:
            SaveFailed: there is a file of that name, or the system refused.
        """
        folder = os.fspath(save_directory)
        if os.path.isfile(folder):
            message = f"`{folder}`: expected a folder to save to, found a file"
            raise SaveFailed(message)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, os.fspath(config_file_name or GENERATION_CONFIG_FILE))
        self.to_json_file(path)
        logger.info("generation config saved to %s", path)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields."""
        fields = copy.deepcopy(self.__dict__)
        fields.pop("_commit_hash", None)
        fields["transformers_version"] = FORMAT_VERSION
        write_dtype_names(fields)
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults."""
        usual = GenerationConfig().to_dict()
        return {
            name: value
            for name, value in self.to_dict().items()
            if name == "transformers_version" or name not in usual or value != usual[name]
        }

    def to_json_string(
        self,
        use_diff: bool = True,  # noqa: FBT001, FBT002
        ignore_metadata: bool = False,  # noqa: FBT001, FBT002
    ) -> str:
        """Return the fields as JSON, sorted.

        Args:
            use_diff: only those of `to_diff_dict`.
            ignore_metadata: leave out where the values come from.
        """
        fields = self.to_diff_dict() if use_diff is True else self.to_dict()
        left_out = _ORIGIN if ignore_metadata else ()
        written = {name: value for name, value in fields.items() if name not in left_out}
        return to_json(_with_text_keys(written))

    def to_json_file(
        self,
        json_file_path: PathLike,
        use_diff: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Write the fields to a JSON file, which is replaced whole.

        Args:
            json_file_path: the file.
            use_diff: only those of `to_diff_dict`.

        Raises:
            SaveFailed: the system refused.
        """
        write_text(json_file_path, self.to_json_string(use_diff))

    def update(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Set parameters that there are; return the others."""
        unused = {name: value for name, value in kwargs.items() if not hasattr(self, name)}
        for name, value in kwargs.items():
            if name not in unused:
                setattr(self, name, value)
        return unused

    def _take_unset(self, fields: dict[str, Any]) -> None:
        """Take what another configuration says of parameters that have their defaults here."""
        usual = GenerationConfig()
        for name in self.to_dict():
            if name in fields and getattr(self, name) == getattr(usual, name):
                setattr(self, name, fields[name])

    def _describe(self, *, use_diff: bool) -> str:
        return self.to_json_string(use_diff, ignore_metadata=True)


def _with_text_keys(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value
