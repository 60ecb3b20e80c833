"""Names of `transformers.modeling_utils` 4.46, for code that imports them from there.

Each does what it did, and says in its documentation where it does better; `docs/differences.md`
has a list. A name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass.config import PretrainedConfig
    from windlass.generation import GenerationConfig
    from windlass.sizes import convert_file_size_to_int
    from windlass.torch import load_sharded_checkpoint
    from windlass.torch.chunking import apply_chunking_to_forward
    from windlass.torch.conv1d import Conv1D
    from windlass.torch.device_maps import expand_device_map, get_disk_only_shard_files
    from windlass.torch.held_tensors import (
        get_first_parameter_dtype,
        get_parameter_device,
        get_parameter_dtype,
        get_state_dict_dtype,
        get_state_dict_float_dtype,
    )
    from windlass.torch.initialisation import no_init_weights
    from windlass.torch.legacy_shards import dtype_byte_size, shard_checkpoint
    from windlass.torch.load_one import load_state_dict
    from windlass.torch.module_names import (
        check_support_param_buffer_assignment,
        find_submodule_and_param_name,
        set_initialized_submodules,
    )
    from windlass.torch.module_utils import ModuleUtilsMixin
    from windlass.torch.pretrained import PreTrainedModel
    from windlass.torch.pruning import (
        find_pruneable_heads_and_indices,
        prune_conv1d_layer,
        prune_layer,
        prune_linear_layer,
    )
    from windlass.torch.question_answering import (
        PoolerAnswerClass,
        PoolerEndLogits,
        PoolerStartLogits,
        SQuADHead,
        SquadHeadOutput,
    )
    from windlass.torch.sequence_summary import SequenceSummary
    from windlass.torch.storages import id_tensor_storage
    from windlass.torch.wrappers import unwrap_model

#: Name → module that defines it.
_LAZY = {
    "Conv1D": "windlass.torch.conv1d",
    "GenerationConfig": "windlass.generation",
    "ModuleUtilsMixin": "windlass.torch.module_utils",
    "PoolerAnswerClass": "windlass.torch.question_answering",
    "PoolerEndLogits": "windlass.torch.question_answering",
    "PoolerStartLogits": "windlass.torch.question_answering",
    "PreTrainedModel": "windlass.torch.pretrained",
    "PretrainedConfig": "windlass.config",
    "SQuADHead": "windlass.torch.question_answering",
    "SequenceSummary": "windlass.torch.sequence_summary",
    "SquadHeadOutput": "windlass.torch.question_answering",
    "apply_chunking_to_forward": "windlass.torch.chunking",
    "check_support_param_buffer_assignment": "windlass.torch.module_names",
    "convert_file_size_to_int": "windlass.sizes",
    "dtype_byte_size": "windlass.torch.legacy_shards",
    "expand_device_map": "windlass.torch.device_maps",
    "find_pruneable_heads_and_indices": "windlass.torch.pruning",
    "find_submodule_and_param_name": "windlass.torch.module_names",
    "get_disk_only_shard_files": "windlass.torch.device_maps",
    "get_first_parameter_dtype": "windlass.torch.held_tensors",
    "get_parameter_device": "windlass.torch.held_tensors",
    "get_parameter_dtype": "windlass.torch.held_tensors",
    "get_state_dict_dtype": "windlass.torch.held_tensors",
    "get_state_dict_float_dtype": "windlass.torch.held_tensors",
    "id_tensor_storage": "windlass.torch.storages",
    "load_sharded_checkpoint": "windlass.torch",
    "load_state_dict": "windlass.torch.load_one",
    "no_init_weights": "windlass.torch.initialisation",
    "prune_conv1d_layer": "windlass.torch.pruning",
    "prune_layer": "windlass.torch.pruning",
    "prune_linear_layer": "windlass.torch.pruning",
    "set_initialized_submodules": "windlass.torch.module_names",
    "shard_checkpoint": "windlass.torch.legacy_shards",
    "unwrap_model": "windlass.torch.wrappers",
}

#: Names that 4.46 keeps to itself and others import all the same → module and name here.
_PRIVATE = {
    "TORCH_INIT_FUNCTIONS": ("windlass.torch.initialisation", "TORCH_INIT_FUNCTIONS"),
    "_add_variant": ("windlass.layout", "add_variant"),
    "_find_disjoint": ("windlass.torch.shared_areas", "find_disjoint"),
    "_find_identical": ("windlass.torch.shared_areas", "find_identical"),
    "_get_tied_weight_keys": ("windlass.torch.pretrained.tying", "declared_ties"),
    "_load_state_dict_into_meta_model": (
        "windlass.torch.load_into",
        "load_state_dict_into_meta_model",
    ),
    "_load_state_dict_into_model": ("windlass.torch.load_into", "load_state_dict_into_model"),
    "_move_model_to_meta": ("windlass.torch.load_into", "move_model_to_meta"),
}

__all__ = [
    "Conv1D",
    "GenerationConfig",
    "ModuleUtilsMixin",
    "PoolerAnswerClass",
    "PoolerEndLogits",
    "PoolerStartLogits",
    "PreTrainedModel",
    "PretrainedConfig",
    "SQuADHead",
    "SequenceSummary",
    "SquadHeadOutput",
    "apply_chunking_to_forward",
    "check_support_param_buffer_assignment",
    "convert_file_size_to_int",
    "dtype_byte_size",
    "expand_device_map",
    "find_pruneable_heads_and_indices",
    "find_submodule_and_param_name",
    "get_disk_only_shard_files",
    "get_first_parameter_dtype",
    "get_parameter_device",
    "get_parameter_dtype",
    "get_state_dict_dtype",
    "get_state_dict_float_dtype",
    "id_tensor_storage",
    "load_sharded_checkpoint",
    "load_state_dict",
    "no_init_weights",
    "prune_conv1d_layer",
    "prune_layer",
    "prune_linear_layer",
    "set_initialized_submodules",
    "shard_checkpoint",
    "unwrap_model",
]


def __getattr__(name: str) -> object:
    if name in _PRIVATE:
        module, origin = _PRIVATE[name]
    elif name in _LAZY:
        module, origin = _LAZY[name], name
    else:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(module), origin)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PRIVATE})
