"""`StoredConfig`: how a configuration gets from a file and into one."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, Self

from windlass.config_fields import (
    GENERATION_FIELDS,
    UNWRITTEN,
    can_be_default,
    find_differences,
    parse_like,
    to_json,
    write_dtype_names,
)
from windlass.config_file import (
    CONFIG_FILE,
    FORMAT_VERSION,
    choose_version,
    read_config,
    read_json_object,
    take_place,
)
from windlass.custom_code import check_auto_class, save_custom_code
from windlass.errors import InvalidConfig, SaveFailed
from windlass.spellings import take_token
from windlass.text_files import write_text

if TYPE_CHECKING:
    from windlass.types import PathLike

logger = logging.getLogger(__name__)


class StoredConfig:
    """What `PretrainedConfig` has of methods for files, texts and dictionaries."""

    model_type: str
    _auto_class: str | None = None

    @classmethod
    def from_pretrained(  # noqa: PLR0917  (the signature that it replaces)
        cls,
        pretrained_model_name_or_path: PathLike,
        cache_dir: PathLike | None = None,
        force_download: bool = False,  # noqa: FBT001, FBT002
        local_files_only: bool = False,  # noqa: FBT001, FBT002
        token: str | bool | None = None,  # noqa: FBT001
        revision: str = "main",
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401  (with `return_unused_kwargs`, a pair)
        """Return the configuration in a folder, a file or a repository of the hub.

        Args:
            pretrained_model_name_or_path: a folder with a `config.json`, such a file, or the id of
                a repository.
            cache_dir: folder of the hub's cache.
            force_download: fetch again what is cached.
            local_files_only: take only what is cached.
            token: a token for the hub.
            revision: branch, tag or commit.
            kwargs: values that replace those of the file, of fields that it has; others are left
                out. Besides, `subfolder`, `proxies`, `resume_download` (deprecated), and
                `return_unused_kwargs`, to be given what was left out.

        Returns:
            The configuration; with `return_unused_kwargs`, it and what was left out.

        Raises:
            ConfigNotFound: there is no such file.
            InvalidConfigFile: it is not JSON, or not an object.
            InvalidConfig: values that contradict each other, or mean nothing.
            HubError: the hub does not give it.
        """
        kwargs["token"] = take_token(token, kwargs.pop("use_auth_token", None))
        place = {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        fields, kwargs = cls.get_config_dict(pretrained_model_name_or_path, **place, **kwargs)
        if fields.get("model_type", cls.model_type) != cls.model_type:
            logger.warning(
                "the config of a model of type `%s` is read as one of type `%s`: some of its "
                "fields may not be understood",
                fields["model_type"],
                cls.model_type,
            )
        return cls.from_dict(fields, **kwargs)

    @classmethod
    def get_config_dict(
        cls,
        pretrained_model_name_or_path: PathLike,
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fields of a configuration file, and the arguments that do not say where it is.

        Where a file lists others for newer versions (`configuration_files`), the newest that is
        known is taken.

        Args:
            pretrained_model_name_or_path: as for `from_pretrained`.
            kwargs: as for `from_pretrained`.

        Raises:
            ConfigNotFound, InvalidConfigFile, HubError: as for `from_pretrained`.
        """
        old_token = kwargs.pop("use_auth_token", None)
        kwargs["token"] = take_token(kwargs.pop("token", None), old_token)
        place = take_place(kwargs)
        commit = kwargs.pop("_commit_hash", None)
        name = kwargs.pop("_configuration_file", CONFIG_FILE)
        fields, found = read_config(pretrained_model_name_or_path, name, place, commit)
        if "configuration_files" in fields:
            name = choose_version(fields["configuration_files"])
            fields, found = read_config(pretrained_model_name_or_path, name, place, found.commit)
        fields["_commit_hash"] = found.commit
        return fields, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:  # noqa: ANN401
        """Return a configuration made of fields.

        Args:
            config_dict: the fields; it is not changed.
            kwargs: values for fields that the configuration then has; a dictionary for a nested
                configuration makes one. `return_unused_kwargs` as for `from_pretrained`.

        Raises:
            InvalidConfig: `num_labels` and `id2label` contradict each other, or a value means
                nothing.
        """
        is_pair = kwargs.pop("return_unused_kwargs", False)
        for name in ("_from_auto", "_from_pipeline"):
            kwargs.pop(name, None)
        if "_commit_hash" in kwargs and "_commit_hash" in config_dict:
            kwargs["_commit_hash"] = config_dict["_commit_hash"]
        attention = kwargs.pop("attn_implementation", None)
        config = cls(**{**config_dict, "attn_implementation": attention})
        if hasattr(config, "pruned_heads"):
            config.pruned_heads = {int(key): heads for key, heads in config.pruned_heads.items()}
        _check_labels(kwargs)
        unused = config._take(kwargs)
        logger.info("model config %s", config)
        return (config, unused) if is_pair else config

    @classmethod
    def from_json_file(cls, json_file: PathLike) -> Self:
        """Return the configuration in a JSON file.

        Raises:
            ConfigNotFound, InvalidConfigFile, InvalidConfig: as for `from_pretrained`.
        """
        return cls(**read_json_object(json_file))

    def save_pretrained(
        self,
        save_directory: PathLike,
        push_to_hub: bool = False,  # noqa: FBT001, FBT002  (the signature that it replaces)
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Write `config.json` into a folder, which is made if it does not exist.

        Args:
            save_directory: the folder.
            push_to_hub: send it to the hub too, to the repository `repo_id`, or of the folder's
                name.
            kwargs: as for `push_to_hub`.

        Raises:
            SaveFailed: there is a file of that name, or the system refused.
            HubError: with `push_to_hub`, the hub does not take it.
        """
        kwargs["token"] = take_token(kwargs.pop("token", None), kwargs.pop("use_auth_token", None))
        folder = os.fspath(save_directory)
        if os.path.isfile(folder):
            message = f"`{folder}`: expected a folder to save to, found a file"
            raise SaveFailed(message)
        if parameters := self._get_non_default_generation_parameters():
            _warn_of_generation(parameters)
        os.makedirs(folder, exist_ok=True)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(folder)))
            return self._send(folder, repo_id, kwargs)
        self._write(folder)
        return None

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:  # noqa: ANN401
        """Send `config.json` to a repository of the hub, which is made if it does not exist.

        Args:
            repo_id: the repository.
            options: as for `windlass.hub.PushToHubMixin.push_to_hub`.

        Returns:
            huggingface_hub's `CommitInfo`.

        Raises:
            HubError: the hub does not take it.
        """
        return self._sender().push_to_hub(repo_id, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, with dtypes by name and nested configurations as dictionaries."""
        fields = copy.deepcopy(self.__dict__)
        fields["model_type"] = type(self).model_type
        for name in UNWRITTEN:
            fields.pop(name, None)
        fields["transformers_version"] = FORMAT_VERSION
        for key, value in fields.items():
            if isinstance(value, StoredConfig):
                fields[key] = value.to_dict()
                del fields[key]["transformers_version"]
        self._add_quantization(fields)
        write_dtype_names(fields)
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from those of a new `PretrainedConfig` or of this class."""
        from windlass.config import PretrainedConfig

        fields = find_differences(self, PretrainedConfig().to_dict())  # type: ignore[arg-type]
        self._add_quantization(fields)
        write_dtype_names(fields)
        return fields

    def to_json_string(self, use_diff: bool = True) -> str:  # noqa: FBT001, FBT002
        """Return the fields as JSON, sorted.

        Args:
            use_diff: only those of `to_diff_dict`.
        """
        return to_json(self.to_diff_dict() if use_diff is True else self.to_dict())

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
        write_text(json_file_path, self.to_json_string(use_diff=use_diff))

    def update(self, config_dict: dict[str, Any]) -> None:
        """Set fields, known ones and others."""
        for key, value in config_dict.items():
            setattr(self, key, value)

    def update_from_string(self, update_str: str) -> None:
        """Set fields from a text like `"width=16,dropout=0.2,scale=false"`.

        Every text is read as the kind of value that the field has now.

        Raises:
            InvalidConfig: there is no such field, or no such value of it; nothing is set then.
            TypeError: the field is no bool, int, float or text.
        """
        values = {}
        for pair in update_str.split(","):
            key, equals, text = pair.partition("=")
            if not equals or not hasattr(self, key):
                message = f"{pair!r}: expected `field=value`, of a field that the config has"
                raise InvalidConfig(message)
            values[key] = parse_like(key, text, getattr(self, key))
        self.update(values)

    def dict_torch_dtype_to_str(self, d: dict[str, Any]) -> None:
        """Replace each dtype under `torch_dtype` by its name, here and in dictionaries within."""
        write_dtype_names(d)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoConfig") -> None:
        """Have saves put the code of this class beside the file, for transformers to load it.

        Args:
            auto_class: the auto class of transformers that is to find it.

        Raises:
            ValueError: not the name of an auto class.
        """
        cls._auto_class = check_auto_class(auto_class)

    def _take(self, values: dict[str, Any]) -> dict[str, Any]:
        """Set those that are fields; return the others, and `torch_dtype`: models want it too."""
        unused = {}
        for key, value in values.items():
            if not hasattr(self, key):
                unused[key] = value
                continue
            former = getattr(self, key)
            is_part = isinstance(former, StoredConfig) and isinstance(value, dict)
            setattr(self, key, type(former)(**value) if is_part else value)
            if key == "torch_dtype":
                unused[key] = value
        return unused

    def _write(self, folder: str) -> None:
        if self._auto_class is not None:
            save_custom_code(self, folder, config=self)
        path = os.path.join(folder, CONFIG_FILE)
        self.to_json_file(path)
        logger.info("config saved to %s", path)

    def _send(self, folder: str, repo_id: str, options: dict[str, Any]) -> None:
        message = options.pop("commit_message", None)
        sender = self._sender()
        repository = sender._create_repo(repo_id, **options)
        before = sender._get_files_timestamps(folder)
        self._write(folder)
        sender._upload_modified_files(
            folder, repository, before, commit_message=message, token=options.get("token")
        )

    def _sender(self) -> Any:  # noqa: ANN401  (windlass.hub is imported where it is needed)
        """Return what saves this to a folder and sends it, under the name of this class."""
        mixin = importlib.import_module("windlass.hub").PushToHubMixin

        def save_pretrained(_: object, folder: PathLike, **__: object) -> None:
            self.save_pretrained(folder)

        return type(type(self).__name__, (mixin,), {"save_pretrained": save_pretrained})()

    def _add_quantization(self, fields: dict[str, Any]) -> None:
        if not hasattr(self, "quantization_config"):
            return
        given = self.quantization_config
        fields["quantization_config"] = given if isinstance(given, dict) else given.to_dict()
        fields.pop("_pre_quantization_dtype", None)

    def _get_non_default_generation_parameters(self) -> dict[str, Any]:
        """Return parameters of generation that are not those of a new config of this class."""
        usual = self._make_usual()
        found = {name: getattr(self, name) for name in GENERATION_FIELDS if hasattr(self, name)}
        return {
            name: value
            for name, value in found.items()
            if value is not None
            and value != (GENERATION_FIELDS[name] if usual is None else getattr(usual, name))
        }

    def _make_usual(self) -> Any:  # noqa: ANN401  (a configuration, or None)
        """Return a new config of this class, or of its decoder's; None if there is none."""
        if not can_be_default(type(self)):  # type: ignore[arg-type]
            return None
        try:
            return type(self)()
        except ValueError:  # It refuses to be without its parts.
            decoder = self.get_text_config(decoder=True)  # type: ignore[attr-defined]
            return None if decoder is self else type(decoder)()


def _check_labels(values: dict[str, Any]) -> None:
    if "num_labels" not in values or "id2label" not in values:
        return
    labels = values["id2label"] or []
    if len(labels) != values["num_labels"]:
        message = (
            f"num_labels and id2label contradict each other: expected {values['num_labels']} "
            f"labels, found {len(labels)}; give one of them"
        )
        raise InvalidConfig(message)


def _warn_of_generation(parameters: dict[str, Any]) -> None:
    message = (
        "parameters of generation belong into a generation config (`model.generation_config`), "
        f"not into the model's: {parameters}"
    )
    warnings.warn(message, UserWarning, stacklevel=3)
