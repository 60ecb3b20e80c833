"""`from_pretrained`: configuration, files, model, weights, in this order."""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from windlass.memory import memory_for
from windlass.opening import open_found
from windlass.options import check_options, check_pretrained_memory
from windlass.prefetch import prefetch_budget
from windlass.quiet import paused_gc
from windlass.torch.pretrained.build import build
from windlass.torch.pretrained.configurations import (
    load_config,
    load_generation,
    prepare_config,
    refuse_adapter,
)
from windlass.torch.pretrained.devices import check_covers
from windlass.torch.pretrained.dtypes import find_dtype, parse_dtype
from windlass.torch.pretrained.fill_model import FillOptions, fill_model
from windlass.torch.pretrained.from_files import (
    HubOptions,
    find_weights,
    is_on_hub,
    refuse_foreign_format,
)
from windlass.torch.pretrained.options import take_options
from windlass.torch.pretrained.unsupported import refuse_quantised
from windlass.torch.sources import DictSource, open_source

if TYPE_CHECKING:
    from windlass.config import PretrainedConfig
    from windlass.torch.pretrained.options import Options
    from windlass.torch.sources import Source
    from windlass.types import Cache, Io, PathLike, Prefetch, PretrainedMemory, Progress

logger = logging.getLogger(__name__)


class LoadingMethods(nn.Module):
    """How a `PreTrainedModel` is loaded, and built from a configuration."""

    config_class: ClassVar[type[PretrainedConfig] | None] = None
    _keep_in_fp32_modules: list[str] | None = None
    _keep_in_fp32_modules_strict: list[str] | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,  # noqa: ANN401
        config: PretrainedConfig | PathLike | None = None,
        cache_dir: PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        use_safetensors: bool | None = None,
        weights_only: bool = True,
        memory: PretrainedMemory = "auto",
        prefetch: Prefetch | None = None,
        threads: int | None = None,
        io: Io = "auto",
        cache: Cache = "keep",
        progress: Progress = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401  (a model, or with output_loading_info a model and a dict)
        """Load a model: its configuration, its weights, and what belongs to generation.

        The model is built without initialising weights, its memory is filled straight from the
        files, and what the checkpoint lacks is initialised by `_init_weights`. The model is in
        evaluation mode: call `train()` to train it. Names that do not fit are told in the log.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, a weights file or
                index, or the id of a repository on the hub. `None` with `config` and `state_dict`.
            *model_args: for the constructor, after the configuration.
            config: a configuration, or a folder or id to load one from, instead of the
                checkpoint's. It is not changed.
            cache_dir: cache of downloads, if not the hub's own.
            ignore_mismatched_sizes: initialise weights of another shape than the checkpoint's,
                instead of raising.
            force_download: download again what is cached.
            local_files_only: do not download.
            token: for the hub; `True` for that of the login.
            revision: branch, tag or commit on the hub.
            use_safetensors: `True` for safetensors only, `False` for pickles only; by default
                safetensors if they are there.
            weights_only: `False` lets a pickle run the code in it.
            memory: `"mapped"` lets weights look into private maps of safetensors, which takes a
                fraction of the time where the files are cached: what is written to a weight, in
                training for one, is in memory and never in the file. Weights that are cast, moved
                or entangled with others, and those of pickles, have memory of their own all the
                same. `"owned"` gives it to all. `"auto"` maps where 256 MiB or more can be mapped,
                weights of 64 KiB and more, on a disk of this machine or in its memory (ext4, XFS,
                Btrfs, tmpfs and overlays of Linux, whose layers nobody can see), and nothing is
                asked of `io` and `cache`, which are nothing to what is mapped; else, or if there
                is no room for a map, it is `"owned"`. The logger `windlass` says at DEBUG which,
                and why. Saves of windlass and of safetensors 0.8 replace files by others, and
                mapped weights keep the old ones, whose room on the disk is freed with the last
                weight of each. Who writes to a file in place, as `cp` onto it does and
                `save_file` of older safetensors (0.4.5, say), changes weights that look into it;
                who makes it shorter, and a disk that fails, end the process (SIGBUS) when a lost
                weight is touched. Where that may happen, where weights of one file are dropped
                one by one after training, or storages are resized, take `"owned"`; also to train
                at once, when the first step takes the time that loading has saved. Weights in
                files are aligned to 8 bytes, not 64, and sums over them may differ in the last
                bits. Limits on memory are compared with what is read, not with what is mapped.
            prefetch: read what is mapped ahead in the background, as far as half of the available
                memory goes (the default), or a size such as `"2GB"`; `False` reads what is touched.
            threads: reader threads, 16 by default.
            io: how bytes are fetched; see `windlass.load_sharded_checkpoint`.
            cache: whether the page cache is to `"keep"` what is read, or to `"drop"` it.
            progress: see `windlass.progress.track`.
            **kwargs: further options, and then attributes of the configuration, and then arguments
                for the constructor. With a configuration given as `config`, all go to the
                constructor. What belongs to generation takes them too. The options are:

                - `state_dict`: weights by name, instead of the checkpoint's.
                - `torch_dtype` or `dtype`: a floating-point dtype or its name; `"auto"` for that of
                  the configuration, or else of the weights. By default torch's default, float32.
                - `device_map`: one device for the whole model: `"cpu"`, `0`, `{"": "cuda:0"}`; it
                  goes before torch's default device.
                - `subfolder`: folder within the folder or repository.
                - `variant`: what stands in the file names, as in `model.fp16.safetensors`.
                - `output_loading_info`: return `(model, info)`; `info` has the lists
                  `missing_keys`, `unexpected_keys`, `mismatched_keys` and `error_msgs`.
                - `attn_implementation`: `"eager"`, `"sdpa"` or `"flash_attention_2"`.
                - `generation_config`: instead of the one in the folder.
                - `proxies`: proxies for downloads, by protocol or host.
                - `low_cpu_mem_usage`: has no effect: memory is the model once anyway. `False` does
                  not go with `device_map`.
                - `_fast_init`: `False` also initialises what will be loaded, as before 4.6.
                - `trust_remote_code`, `code_revision`, `adapter_name`, `mirror`,
                  `resume_download`: have no effect, and say so.
                - `use_auth_token`: old name of `token`.

        Returns:
            The model; with `output_loading_info=True` a tuple of the model and a dict.

        Raises:
            CheckpointNotFound: there are no weights, or not those asked for.
            IncompatibleKeys: weights of another shape; the message has all of them.
            MixedNames: the checkpoint mixes names of a base model and of its head.
            ShardNotFound, InvalidHeader, InvalidIndex, IndexMismatch, InvalidPickle: files are
                damaged, or not there.
            UnknownFormat: safetensors of a framework that nobody knows.
            ConfigNotFound, InvalidConfigFile, InvalidConfig: the configuration, or that of
                generation.
            NotSupported: TensorFlow, Flax, GGUF, quantised or adapter weights; several devices;
                offloading.
            HubError: something is wrong with a download.
            NotEnoughMemory: the system has none left for the model.
            ModelError: the constructor of a model of another dtype waits for this one, in another
                thread.
            ValueError: arguments that are wrong or contradict each other.

        Example:
            >>> model = Pretrained.from_pretrained(folder / "saved", torch_dtype="bfloat16")
            >>> model.dtype
            torch.bfloat16
        """
        check_pretrained_memory(memory)
        check_options(io=io, cache=cache, threads=threads)
        is_ahead = memory != "owned" if prefetch is None else prefetch
        budget = prefetch_budget(is_ahead, memory)
        is_own = config is None
        hub = HubOptions("", revision, cache_dir, token, force_download, local_files_only, None)
        options = take_options(
            kwargs, pretrained_model_name_or_path, hub, use_safetensors, weights_only=weights_only
        )
        config, rest = load_config(cls, config, options, kwargs)
        if is_own:
            options = options.at_commit(config)
        refuse_adapter(options)
        refuse_quantised(config)
        source = _open(options)
        dtype = find_dtype(options.dtype, config, source)
        config = prepare_config(cls, config, options, dtype)
        with paused_gc(), memory_for(f"loading {cls.__name__}"):
            model: Any = build(
                partial(cls, config, *model_args, **rest),
                dtype=dtype,
                device=options.device,
                init=not options.fast_init,
            )
            check_covers(options.device_map, model)
            report = fill_model(
                model,
                source,
                FillOptions(
                    ignore_mismatched_sizes=ignore_mismatched_sizes,
                    initialise=options.fast_init,
                    keep_in_float32=_float32_parts(model, dtype),
                    memory=memory,
                    prefetch=budget,
                    threads=threads,
                    io=io,
                    cache=cache,
                    progress=progress,
                ),
            )
            _finish(model, options, kwargs)
        architectures = getattr(config, "architectures", None) or []
        report.log(cls.__name__, source.path, is_same_architecture=cls.__name__ in architectures)
        return (model, report.as_dict()) if options.output_loading_info else model

    @classmethod
    def _from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Self:  # noqa: ANN401
        """Build a model with new weights.

        Args:
            config: the configuration; it is not changed.
            **kwargs: `torch_dtype` or `dtype`, a floating-point dtype or its name;
                `attn_implementation`; `use_flash_attention_2`, its old form. The rest goes to the
                constructor.

        Raises:
            ValueError: the dtype is not a floating-point one.
        """
        old = kwargs.pop("torch_dtype", None)
        wanted = old if (new := kwargs.pop("dtype", None)) is None else new
        dtype = None if wanted is None else parse_dtype(wanted)
        config = copy.deepcopy(config)
        attention = kwargs.pop("attn_implementation", None)
        if attention is not None:
            config._attn_implementation = attention
            config._attn_implementation_autoset = False
        use_flash = kwargs.pop("use_flash_attention_2", False)
        if not getattr(config, "_attn_implementation_autoset", False):
            config = cls._autoset_attn_implementation(  # type: ignore[attr-defined]
                config,
                use_flash_attention_2=use_flash,
                torch_dtype=dtype or torch.get_default_dtype(),
                check_device_map=False,
            )
        return build(partial(cls, config, **kwargs), dtype=dtype, device=None, init=True)

    @classmethod
    def _set_default_torch_dtype(cls, dtype: torch.dtype) -> torch.dtype:
        """Set torch's default dtype, and return the one it was.

        Raises:
            ValueError: it is no floating-point dtype.
        """
        if not dtype.is_floating_point:
            message = f"{cls.__name__} should be built under a floating-point dtype, found {dtype}"
            raise ValueError(message)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        return before


def _open(options: Options) -> Source:
    """Open the weights: those given, or those of the files."""
    if options.state_dict is not None:
        return DictSource(
            dict(options.state_dict),
            options.path or "the given state_dict",
            metadata=getattr(options.state_dict, "_metadata", None),
        )
    path = options.path
    assert path is not None  # noqa: S101  (one of the two is given: checked with the options)
    find = partial(find_weights, path, options.wanted, options.hub)
    open_file = partial(open_source, strict_format=False, weights_only=options.weights_only)
    # What is cached of a commit stays: nobody saves there between two looks.
    source = open_file(find()) if is_on_hub(path) else open_found(find, open_file)
    refuse_foreign_format(source)
    return source


def _float32_parts(model: Any, dtype: torch.dtype | None) -> set[str]:  # noqa: ANN401
    """Return the parts of names whose parameters stay float32."""
    parts = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.bfloat16:
        return parts
    if dtype == torch.float16:
        return parts | set(model._keep_in_fp32_modules or ())
    return set()


def _finish(model: Any, options: Options, fields: dict[str, Any]) -> None:  # noqa: ANN401
    """Tie what loading may have parted, set what belongs to generation, and evaluate."""
    model.tie_weights()
    model.eval()
    if options.device is not None:
        model.hf_device_map = {"": options.device}
    if not model.can_generate():
        return
    if options.generation_config is not None:
        model.generation_config = copy.deepcopy(options.generation_config)
    elif options.folder is not None:
        found = load_generation(options.folder, options.hub, fields)
        model.generation_config = found or model.generation_config
