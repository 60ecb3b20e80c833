"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.pretrained import MODELS, saved
from builders.sharded import shard_name, write_dealt

if TYPE_CHECKING:
    from hub_server import HubServer

ROOT = Path(__file__).parents[1]
MODULES_WITH_EXAMPLES = (
    "windlass.checkpoint",
    "windlass.config",
    "windlass.config_file",
    "windlass.custom_code",
    "windlass.dtype_names",
    "windlass.generation",
    "windlass.hub.files",
    "windlass.hub.shards",
    "windlass.spellings",
    "windlass.hub.stale",
    "windlass.index",
    "windlass.layout",
    "windlass.numpy",
    "windlass.recovery",
    "windlass.safe",
    "windlass.sizes",
    "windlass.split",
    "windlass.torch.aliases",
    "windlass.torch.chunking",
    "windlass.torch.conv1d",
    "windlass.torch.device_maps",
    "windlass.torch.embeddings",
    "windlass.torch.files",
    "windlass.torch.held_tensors",
    "windlass.torch.initialisation",
    "windlass.torch.legacy_shards",
    "windlass.torch.load_into",
    "windlass.torch.load_one",
    "windlass.torch.load_sharded",
    "windlass.torch.load_saved",
    "windlass.torch.module_names",
    "windlass.torch.module_utils",
    "windlass.torch.one_file",
    "windlass.torch.pretrained.devices",
    "windlass.torch.pretrained.dtypes",
    "windlass.torch.pretrained.keys",
    "windlass.torch.pretrained.loading",
    "windlass.torch.pretrained.model",
    "windlass.torch.pretrained.saving",
    "windlass.torch.pruning",
    "windlass.torch.question_answering",
    "windlass.torch.background",
    "windlass.torch.save_checkpoint",
    "windlass.torch.sequence_summary",
    "windlass.torch.shared_areas",
    "windlass.torch.split",
    "windlass.torch.storages",
    "windlass.torch.wrappers",
    "windlass.verification",
)


class Embedder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(100, 16)
        self.head = torch.nn.Linear(16, 4)


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Any]:
    """What the examples take for granted: a model, and a folder with its checkpoint."""
    model = Embedder()
    with torch.device("meta"):
        meta_model = Embedder()
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    write_dealt(tmp_path, state, places=[0, 1, 1])
    pretrained = saved(tmp_path / "saved")
    first = tmp_path / shard_name(1, 2)
    (tmp_path / "model.safetensors").write_bytes(first.read_bytes())
    return {
        "torch": torch,
        "model": model,
        "meta_model": meta_model,
        "folder": tmp_path,
        "PretrainedConfig": windlass.PretrainedConfig,
        "PreTrainedModel": windlass.PreTrainedModel,
        "Pretrained": MODELS.TinyForLabels,
        "pretrained": pretrained,
    }


def test_readme_examples_run(names: dict[str, Any]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Of huggingface_hub.
def test_page_without_transformers_runs(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub_server.store import Account

    hub.accounts["hf_me"] = Account("me")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    page = (ROOT / "docs" / "without_transformers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 9
    names = {"folder": tmp_path}
    for block in blocks:
        exec(compile(block, "without_transformers.md", "exec"), names)
    assert {"config.json", "model.safetensors"} <= set(hub.repositories["me/letters"].names)


@pytest.mark.parametrize("module", MODULES_WITH_EXAMPLES)
def test_docstring_examples_run(module: str, names: dict[str, Any]) -> None:
    loaded = importlib.import_module(module)
    result = doctest.testmod(loaded, extraglobs=names, raise_on_error=False)
    assert result.attempted
    assert not result.failed


def test_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")]
    named = {
        target
        for text in texts
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)
    }
    assert named <= targets
