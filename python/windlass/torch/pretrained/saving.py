"""`save_pretrained`: configuration, generation configuration and weights into a folder.

Everything about the weights is checked before a file is written.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from windlass.errors import NotSupported, SaveFailed
from windlass.layout import PICKLE_FILE, SAFE_FILE, add_variant
from windlass.refusals import is_in_place
from windlass.spellings import take_token
from windlass.text_files import staged_files
from windlass.torch.pretrained.describing import describe
from windlass.torch.pretrained.from_files import check_variant
from windlass.torch.pretrained.sending import Sending, check_options
from windlass.torch.pretrained.tying import declared_ties
from windlass.torch.save_by_function import write_by_function
from windlass.torch.save_checkpoint import Prepared, make_folder, prepare
from windlass.torch.wrappers import unwrap_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from windlass.torch.pretrained.model import PreTrainedModel
    from windlass.types import PathLike, Progress

logger = logging.getLogger(__name__)


class SavingMethods(nn.Module):
    """How a `PreTrainedModel` is saved."""

    def save_pretrained(  # noqa: PLR0917  (the signature that it replaces)
        self,
        save_directory: PathLike,
        is_main_process: bool = True,  # noqa: FBT001, FBT002
        state_dict: Mapping[str, torch.Tensor] | None = None,
        save_function: Callable[..., object] = torch.save,
        push_to_hub: bool = False,  # noqa: FBT001, FBT002
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,  # noqa: FBT001, FBT002
        variant: str | None = None,
        token: str | bool | None = None,  # noqa: FBT001
        save_peft_format: bool = True,  # noqa: FBT001, FBT002
        *,
        durable: bool = False,
        checksums: bool = False,
        threads: int | None = None,
        progress: Progress = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Save model and configuration to a folder, from which `from_pretrained` loads them.

        A checkpoint that is there is replaced whole or not at all. Weights that the class declares
        to be tied (`_tied_weights_keys`) are stored once; other weights that share memory are
        refused, with their names. Neither `state_dict` nor the configuration of the model is
        changed.

        Args:
            save_directory: the folder; it is made if it is not there.
            is_main_process: `False` writes nothing: with several processes one should write.
            state_dict: what to save instead of `self.state_dict()`.
            save_function: what to call as `save_function(tensors, path)` for each file instead of
                `torch.save`; only with `safe_serialization=False`.
            push_to_hub: also send the folder to the hub, to `repo_id` or a repository of the
                folder's name.
            max_shard_size: largest file, in bytes or as text such as `"5GB"`. A larger weight gets
                a file of its own.
            safe_serialization: safetensors; `False` writes pickles of torch.
            variant: what to put into the names of the weights, as in `model.fp16.safetensors`.
            token: for the hub; `True` for that of the login.
            save_peft_format: for adapters, which are not there yet: has no effect without one.
            durable: return only when everything is on the disk.
            checksums: store a CRC-32C of every tensor, for `windlass.verify`.
            threads: writer threads; by default 4, or 16 (and no more) past the page cache.
            progress: see `windlass.progress.track`.
            **kwargs: for `push_to_hub`: `repo_id`, `commit_message`, `private`, `create_pr`,
                `revision` and the others. `save_config` is the old name of `is_main_process`,
                `use_auth_token` of `token`.

        Raises:
            SharedTensors: weights share memory that the class does not declare to be tied.
            UnsupportedTensor, InvalidName: a value that cannot be saved.
            SaveFailed: the system refused; also where `save_directory` is a file.
            ValueError: arguments that contradict each other.

        Example:
            >>> pretrained.save_pretrained(folder / "mine", max_shard_size="0.6KB")
            >>> sorted(file.name for file in (folder / "mine").iterdir())[:2]
            ['config.json', 'model-00001-of-00002.safetensors']
        """
        del save_peft_format  # Of adapters, which `_check` refuses.
        kwargs, is_main_process = _take_old_names(kwargs, token, is_main_process=is_main_process)
        _check(self, save_directory, save_function, safe_serialization=safe_serialization)
        kwargs = check_options(kwargs)
        model: Any = unwrap_model(self)
        prepared = _prepare_weights(
            model,
            model.state_dict() if state_dict is None else state_dict,
            variant,
            max_shard_size=max_shard_size,
            safe_serialization=safe_serialization,
            durable=durable,
            checksums=checksums,
            threads=threads,
            progress=progress,
        )
        if not is_main_process:
            return
        folder = os.fspath(save_directory)
        described = {os.path.join(folder, name): text for name, text in describe(model).items()}
        sending = Sending(model, folder, kwargs) if push_to_hub else None
        for one in sorted({folder, *map(os.path.dirname, described)}):
            make_folder(one, durable=durable)
        with staged_files(described, durable=durable) as put_in_place:
            try:
                if save_function is torch.save:
                    prepared.write(folder)
                else:
                    write_by_function(prepared, folder, save_function)
            except BaseException as error:
                if is_in_place(error):  # Without its configuration it would be of no use.
                    put_in_place()
                raise
            put_in_place()
        logger.info("weights saved in `%s`: %s", folder, list(prepared.split.filename_to_tensors))
        if sending is not None:
            sending.send(model.model_tags)

    def _check_saving(self, **options: Any) -> None:  # noqa: ANN401
        """Raise what `save_pretrained` would, as far as that can be known before."""
        model: Any = unwrap_model(self)
        _check(self, "", torch.save, safe_serialization=options["safe_serialization"])
        _prepare_weights(model, model.state_dict(), None, **options)


def _take_old_names(
    kwargs: dict[str, Any],
    token: str | bool | None,  # noqa: FBT001
    *,
    is_main_process: bool,
) -> tuple[dict[str, Any], bool]:
    kwargs = dict(kwargs)
    token = take_token(token, kwargs.pop("use_auth_token", None))
    if token is not None:
        kwargs["token"] = token
    if "save_config" in kwargs:
        message = "save_config is deprecated, use is_main_process"
        warnings.warn(message, FutureWarning, stacklevel=3)
        is_main_process = kwargs.pop("save_config")
    return kwargs, is_main_process


def _check(
    model: nn.Module, folder: PathLike, save_function: object, *, safe_serialization: bool
) -> None:
    if getattr(model, "_hf_peft_config_loaded", False):
        message = "adapters (PEFT) are not saved yet: save them with the peft package"
        raise NotSupported(message)
    if getattr(model, "hf_quantizer", None) is not None:
        message = "quantised models are not saved yet: dequantise the model first"
        raise NotSupported(message)
    if safe_serialization and save_function is not torch.save:
        message = (
            "save_function is for pickles: give safe_serialization=False with it, or leave it out"
        )
        raise ValueError(message)
    if os.path.isfile(folder):
        message = f"`{os.fspath(folder)}`: save_directory should be a folder, and is a file"
        raise SaveFailed(message)


def _prepare_weights(
    model: PreTrainedModel,
    state: Mapping[str, torch.Tensor],
    variant: str | None,
    *,
    safe_serialization: bool,
    **options: Any,  # noqa: ANN401
) -> Prepared:
    """Check and plan the weights; the index of a variant gets the name that transformers reads."""
    ignored = set(model._keys_to_ignore_on_save or ())
    state = {name: value for name, value in state.items() if name not in ignored}
    name = add_variant(SAFE_FILE if safe_serialization else PICKLE_FILE, check_variant(variant))
    stem, dot, ending = name.rpartition(".")
    prepared = prepare(
        state,
        filename_pattern=f"{stem}{{suffix}}{dot}{ending}",
        safe_serialization=safe_serialization,
        shared_tensors_to_discard=declared_ties(model),
        keep="transformers",
        on_overlap="error" if safe_serialization else "store",
        **options,
    )
    family = prepared.family
    if family.foreign_index_name is not None:
        names = (family.foreign_index_name, family.index_name)
        family = family._replace(index_name=names[0], foreign_index_name=names[1])
    return prepared._replace(family=family)
