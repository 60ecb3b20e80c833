"""`PreTrainedModel`: an `nn.Module` with a configuration, that can be loaded, saved and resized."""

from __future__ import annotations

import copy
import itertools
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from windlass.custom_code import check_auto_class
from windlass.hub import PushToHubMixin
from windlass.torch.initialisation import draws_weights
from windlass.torch.load_into import load_state_dict_into_meta_model, move_model_to_meta
from windlass.torch.load_one import load_state_dict
from windlass.torch.module_utils import ModuleUtilsMixin
from windlass.torch.pretrained.attention import AttentionMethods
from windlass.torch.pretrained.gradients import GradientMethods
from windlass.torch.pretrained.guards import GuardMethods
from windlass.torch.pretrained.loading import LoadingMethods
from windlass.torch.pretrained.saving import SavingMethods
from windlass.torch.pretrained.tying import TyingMethods
from windlass.torch.pretrained.vocabulary import VocabularyMethods

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from windlass.config import PretrainedConfig
    from windlass.types import PathLike

logger = logging.getLogger(__name__)

#: Tokens of no meaning, for a first pass through a network.
_DUMMY_INPUTS = [[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]]


class PreTrainedModel(
    LoadingMethods,
    SavingMethods,
    TyingMethods,
    VocabularyMethods,
    GradientMethods,
    AttentionMethods,
    GuardMethods,
    ModuleUtilsMixin,
    PushToHubMixin,
    nn.Module,
):
    """Base class of models that have a configuration, and weights in a folder or on the hub.

    A subclass sets `config_class`, takes a configuration as the first argument of its constructor,
    and calls `post_init()` at its end. Class attributes say the rest:

    Attributes:
        config_class: the class of its configuration.
        base_model_prefix: attribute under which models with a head hold the base model.
        main_input_name: name of the first input of `forward`.
        model_tags: tags for the model card.
        is_parallelizable: for compatibility; has no effect.
        supports_gradient_checkpointing: whether its modules can compute activations again.
        _tied_weights_keys: patterns of names that are tied to others, or `{target: source}`, which
            `tie_weights` then ties.
        _keys_to_ignore_on_load_missing: patterns of names that a checkpoint may lack.
        _keys_to_ignore_on_load_unexpected: patterns of names that a checkpoint may have.
        _keys_to_ignore_on_save: names that are not saved.
        _keep_in_fp32_modules: parts of names whose parameters stay float32 in float16 models.
        _keep_in_fp32_modules_strict: the same, for bfloat16 too.
        _no_split_modules: classes of modules that stay on one device.
        _supports_sdpa, _supports_flash_attn_2: attentions that it has.

    Args:
        config: the configuration.

    Raises:
        ValueError: the configuration is not a `PretrainedConfig`.

    Example:
        >>> class Scale(PreTrainedModel):
        ...     config_class = PretrainedConfig
        ...
        ...     def __init__(self, config):
        ...         super().__init__(config)
        ...         self.scale = torch.nn.Parameter(torch.ones(3))
        ...         self.post_init()
        >>> Scale(PretrainedConfig()).save_pretrained(folder / "scale")
        >>> Scale.from_pretrained(folder / "scale").scale.shape
        torch.Size([3])
    """

    config_class: ClassVar[type[PretrainedConfig] | None] = None
    base_model_prefix: str = ""
    main_input_name: str = "input_ids"
    model_tags: list[str] | None = None
    is_parallelizable: ClassVar[bool] = False

    _auto_class: str | None = None
    _hf_peft_config_loaded: bool = False
    _no_split_modules: list[str] | None = None
    _skip_keys_device_placement: str | list[str] | None = None
    _keys_to_ignore_on_load_missing: list[str] | None = None
    _keys_to_ignore_on_load_unexpected: list[str] | None = None
    _keys_to_ignore_on_save: list[str] | None = None
    _tied_weights_keys: list[str] | dict[str, str] | None = None
    _is_stateful: ClassVar[bool] = False
    _supports_cache_class: ClassVar[bool] = False
    _supports_static_cache: ClassVar[bool] = False
    _supports_quantized_cache: ClassVar[bool] = False

    def __init__(self, config: PretrainedConfig, *inputs: Any, **kwargs: Any) -> None:  # noqa: ANN401
        from windlass.config import PretrainedConfig

        del inputs, kwargs
        super().__init__()
        if not isinstance(config, PretrainedConfig):
            message = (
                f"{type(self).__name__}(config): expected a PretrainedConfig, found "
                f"{type(config).__name__}; {type(self).__name__}.from_pretrained takes a folder or "
                "an id"
            )
            raise ValueError(message)  # noqa: TRY004  (the class that callers expect)
        if not getattr(config, "_attn_implementation_autoset", False):
            config = self._autoset_attn_implementation(
                config, torch_dtype=torch.get_default_dtype(), check_device_map=False
            )
        self.config = config
        self.name_or_path = config.name_or_path
        self.warnings_issued: dict[str, bool] = {}
        self.generation_config = _generation_config(config) if self.can_generate() else None
        self._keep_in_fp32_modules = copy.copy(type(self)._keep_in_fp32_modules)

    def post_init(self) -> None:
        """Initialise weights, and what the configuration asks for; constructors end with it."""
        self.init_weights()
        self._take_configured_checkpointing()

    def init_weights(self) -> None:
        """Prune the heads that the configuration says are pruned; initialise and tie weights.

        Inside `no_init_weights`, as while weights are loaded, only heads are pruned.
        """
        if self.config.pruned_heads:
            self.prune_heads(self.config.pruned_heads)
        if draws_weights():
            self.apply(self._initialize_weights)
            self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the weights of one module; models override this.

        Called for the modules of a new model, and of a loaded one for those of which a weight was
        not in the checkpoint. Without an override, these are initialised by their
        `reset_parameters`.
        """

    def _initialize_weights(self, module: nn.Module) -> None:
        """Initialise a module once."""
        if not getattr(module, "_is_hf_initialized", False):
            self._init_weights(module)
            module._is_hf_initialized = True  # type: ignore[assignment]

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Take heads out of attentions of the base model, which does it in `_prune_heads`.

        Args:
            heads_to_prune: number of a layer → numbers of heads in it. What is pruned in all is
                kept in `config.pruned_heads`.
        """
        pruned = self.config.pruned_heads
        for layer, heads in heads_to_prune.items():
            pruned[layer] = sorted({*pruned.get(layer, ()), *heads})
        self.base_model._prune_heads(heads_to_prune)

    @property
    def base_model(self) -> Any:  # noqa: ANN401  (a model of any class)
        """The main body of the model: without a head, the model itself."""
        return getattr(self, self.base_model_prefix, self) if self.base_model_prefix else self

    @property
    def framework(self) -> str:
        """`"pt"`: a model of torch."""
        return "pt"

    @property
    def dummy_inputs(self) -> dict[str, torch.Tensor]:
        """Inputs for a first pass through the network."""
        return {"input_ids": torch.tensor(_DUMMY_INPUTS)}

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the class has a `generate`, or prepares inputs for one."""
        hooks = ("generate", "prepare_inputs_for_generation")
        return any(callable(getattr(cls, hook, None)) for hook in hooks)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoModel") -> None:
        """Have the file that defines the class saved with its models.

        Args:
            auto_class: the auto class under which `config.auto_map` has it, such as `"AutoModel"`.

        Raises:
            ValueError: that is not the name of an auto class.
        """
        cls._auto_class = check_auto_class(auto_class)

    def add_model_tags(self, tags: Sequence[str] | str) -> None:
        """Add tags for the model card, each once.

        Args:
            tags: a tag, or several.
        """
        new = [tags] if isinstance(tags, str) else tags
        self.model_tags = list(dict.fromkeys([*(self.model_tags or ()), *new]))

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Save the model and send it to the hub with its tags: see `PushToHubMixin`."""
        tags = kwargs.get("tags") or ()
        tags = [tags] if isinstance(tags, str) else tags
        if self.model_tags or tags:
            kwargs["tags"] = list(dict.fromkeys([*(self.model_tags or ()), *tags]))
        return super().push_to_hub(*args, **kwargs)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:  # noqa: FBT001, FBT002
        """Return the bytes of all parameters, each once.

        Args:
            return_buffers: count buffers as well.
        """
        buffers = self.buffers() if return_buffers else ()
        return sum(one.nelement() * one.element_size() for one in (*self.parameters(), *buffers))

    def retrieve_modules_from_names(
        self,
        names: Iterable[str],
        add_prefix: bool = False,  # noqa: FBT001, FBT002  (the signature that it replaces)
        remove_prefix: bool = False,  # noqa: FBT001, FBT002
    ) -> list[nn.Module]:
        """Return the modules that hold weights of these names.

        Args:
            names: names of weights, as a checkpoint has them.
            add_prefix: modules lack the prefix of the base model before their names.
            remove_prefix: modules have it, and the names of weights do not.
        """
        owners = {_owner(name) for name in names}
        prefix = self.base_model_prefix
        found = []
        for name, module in self.named_modules():
            if remove_prefix:
                name = name.removeprefix(f"{prefix}.")  # noqa: PLW2901
            elif add_prefix:
                name = f"{prefix}.{name}" if name else prefix  # noqa: PLW2901
            if name in owners:
                found.append(module)
        return found

    @staticmethod
    def _load_pretrained_model_low_mem(  # noqa: PLR0917  (the signature that it replaces)
        model: PreTrainedModel,
        loaded_state_dict_keys: Collection[str],
        resolved_archive_file: PathLike,
        start_prefix: str = "",
        hf_quantizer: object = None,
        pretrained_model_name_or_path: str | None = None,
        weights_only: bool = True,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401
        """Put the tensors of a file in the place of a model's, whose memory is freed before.

        Args:
            model: the model.
            loaded_state_dict_keys: names to take.
            resolved_archive_file: safetensors or a pickle.
            start_prefix: what the names begin with and the model's do not.
            hf_quantizer: is not there yet.
            pretrained_model_name_or_path: has no effect.
            weights_only: as for `load_state_dict`.

        Returns:
            As `windlass.torch.load_into.load_state_dict_into_meta_model`.
        """
        del pretrained_model_name_or_path
        move_model_to_meta(model, loaded_state_dict_keys, start_prefix)
        state = load_state_dict(resolved_archive_file, weights_only=weights_only)
        return load_state_dict_into_meta_model(
            model, state, start_prefix, loaded_state_dict_keys, hf_quantizer=hf_quantizer
        )

    def _get_no_split_modules(self, device_map: str) -> list[str]:
        """Return the classes of modules that stay on one device, of this model and those in it.

        Args:
            device_map: the strategy that asks, for the message.

        Raises:
            ValueError: a model in it does not say.
        """
        classes: set[str] = set()
        waiting: list[nn.Module] = [self]
        while waiting:
            module = waiting.pop()
            if type(module).__name__ in classes:
                continue
            if isinstance(module, PreTrainedModel):
                if module._no_split_modules is None:
                    message = (
                        f"{type(module).__name__} does not support device_map={device_map!r}: it "
                        "does not set _no_split_modules"
                    )
                    raise ValueError(message)
                classes.update(module._no_split_modules)
            waiting += module.children()
        return sorted(classes)

    def warn_if_padding_and_no_attention_mask(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> None:
        """Warn, once for a model, if tokens seem to be padding and there is no attention mask.

        Args:
            input_ids: tokens; the first and the last of each row are looked at.
            attention_mask: the mask, if there is one.
        """
        if isinstance(input_ids, torch.fx.Proxy):
            return  # Tokens are not known while a model is traced.
        pad = self.config.pad_token_id
        if attention_mask is not None or pad is None or "padding" in self.warnings_issued:
            return
        jit: Any = torch.jit
        if jit.is_tracing() or torch.compiler.is_compiling():
            return
        if pad in input_ids[:, [-1, 0]]:
            self.warnings_issued["padding"] = True
            logger.warning("%s", _padding_words(self.config))


def _generation_config(config: PretrainedConfig) -> Any:  # noqa: ANN401
    from windlass.generation import GenerationConfig

    return GenerationConfig.from_model_config(config)


def _owner(name: str) -> str:
    """Return the module that a weight is in; entries of a parameter list are named by numbers."""
    owner, _, key = name.rpartition(".")
    return owner.rpartition(".")[0] if key.isdigit() else owner


def _padding_words(config: Any) -> str:  # noqa: ANN401
    words = (
        "input_ids have padding at their ends and there is no attention_mask: pass one, or the "
        "model will attend to the padding"
    )
    others = (config.bos_token_id, config.eos_token_id, config.sep_token_id)
    if config.pad_token_id in itertools.chain(others):
        words += (
            f". The padding token {config.pad_token_id} also begins, ends or parts texts, so this "
            "may not be padding: pass an attention_mask to say so"
        )
    return words
