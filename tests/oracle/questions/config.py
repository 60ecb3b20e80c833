"""Questions about configurations: what 4.46.3 reads, keeps and writes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import transformers
from transformers import GenerationConfig, PretrainedConfig

from oracle.config_classes import config_classes, describe_config, describe_generation

_CLASSES = config_classes(PretrainedConfig)


def describe(case: dict[str, Any]) -> dict[str, Any]:
    """What a configuration with some arguments is, and what would be written of it."""
    return describe_config(_CLASSES[case["kind"]](**case["arguments"]))


def from_dict(case: dict[str, Any]) -> Any:
    """What becomes of fields and of arguments beside them."""
    config, unused = _CLASSES[case["kind"]].from_dict(
        case["fields"], return_unused_kwargs=True, **case["arguments"]
    )
    return [describe_config(config), unused]


def from_folder(case: dict[str, Any]) -> Any:
    """What is read from a folder or file."""
    config, unused = _CLASSES[case["kind"]].from_pretrained(
        case["path"], return_unused_kwargs=True, **case["arguments"]
    )
    return [describe_config(config), unused]


def save(case: dict[str, Any]) -> None:
    """Save a configuration to a folder."""
    _CLASSES[case["kind"]](**case["arguments"]).save_pretrained(case["folder"])


def update_from_string(case: dict[str, Any]) -> dict[str, Any]:
    config = _CLASSES[case["kind"]](**case["arguments"])
    config.update_from_string(case["text"])
    return describe_config(config)


def attributes(case: dict[str, Any]) -> list[Any]:
    """The values of some attributes, after others have been set."""
    config = _CLASSES[case["kind"]](**case["arguments"])
    for name, value in case["set"]:
        setattr(config, name, value)
    return [getattr(config, name) for name in case["get"]]


def generation(case: dict[str, Any]) -> dict[str, Any]:
    return describe_generation(GenerationConfig(**case["arguments"]))


def generation_of_model(case: dict[str, Any]) -> dict[str, Any]:
    config = _CLASSES[case["kind"]](**case["arguments"])
    return describe_generation(GenerationConfig.from_model_config(config))


def generation_from_folder(case: dict[str, Any]) -> list[Any]:
    config, unused = GenerationConfig.from_pretrained(
        case["path"], return_unused_kwargs=True, **case["arguments"]
    )
    return [describe_generation(config), unused]


def save_custom(case: dict[str, Any]) -> list[str]:
    """Save a class of a module of the user's own, over the base of 4.46, and list the files."""
    sys.path.insert(0, case["path"])
    sys.modules["windlass"] = transformers
    try:
        module = importlib.import_module("mine_package.configuration")
        module.MineConfig.register_for_auto_class()
        module.MineConfig(width=5).save_pretrained(case["folder"])
    finally:
        sys.path.remove(case["path"])
        for name in [name for name in sys.modules if name.startswith(("mine_package", "windlass"))]:
            del sys.modules[name]
    return sorted(os.listdir(case["folder"]))
