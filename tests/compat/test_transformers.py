"""The same folders through windlass and through transformers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import contents, fingerprint
from builders.oracle import load_446

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def transformers() -> Any:
    """Import transformers, whose own warnings are not this test's business."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
        import transformers.trainer_utils

        return transformers


def _bert(transformers: Any, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model: torch.nn.Module = transformers.BertModel(config)
    return model


def _gpt2(transformers: Any, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=8)
    model: torch.nn.Module = transformers.GPT2LMHeadModel(config)
    return model


@pytest.mark.filterwarnings("ignore")
def test_saved_model_is_loaded_as_transformers_loads_it(tmp_path: Path, transformers: Any) -> None:
    _bert(transformers, 1).save_pretrained(tmp_path, max_shard_size="8KB")
    ours, theirs, oracle = (_bert(transformers, seed) for seed in (2, 3, 4))
    result = windlass.load_sharded_checkpoint(ours, tmp_path)
    assert result == transformers.trainer_utils.load_sharded_checkpoint(theirs, str(tmp_path))
    assert result == load_446(oracle, tmp_path)
    assert contents(ours) == contents(theirs) == contents(oracle)


@pytest.mark.filterwarnings("ignore")
def test_tied_model_loads_its_own_checkpoint_strictly(tmp_path: Path, transformers: Any) -> None:
    """Where transformers reports `lm_head.weight` missing."""
    source = _gpt2(transformers, 1)
    source.save_pretrained(tmp_path, max_shard_size="8KB")
    ours = _gpt2(transformers, 2)
    with pytest.raises(RuntimeError, match="lm_head"):
        transformers.trainer_utils.load_sharded_checkpoint(_gpt2(transformers, 3), str(tmp_path))
    assert windlass.load_sharded_checkpoint(ours, tmp_path) == ([], [])
    assert contents(ours) == contents(source)
    assert ours.lm_head.weight is ours.transformer.wte.weight


@pytest.mark.filterwarnings("ignore")
def test_single_file_of_a_small_model_is_loaded(tmp_path: Path, transformers: Any) -> None:
    source, ours = _gpt2(transformers, 1), _gpt2(transformers, 2)
    source.save_pretrained(tmp_path)
    assert windlass.load_sharded_checkpoint(ours, tmp_path) == ([], [])
    assert contents(ours) == contents(source)


@pytest.mark.filterwarnings("ignore")
def test_strict_errors_begin_with_the_same_words(tmp_path: Path, transformers: Any) -> None:
    _bert(transformers, 1).save_pretrained(tmp_path, max_shard_size="8KB")
    model = _gpt2(transformers, 2)
    before, words = fingerprint(model), []
    for load in (
        windlass.load_sharded_checkpoint,
        transformers.trainer_utils.load_sharded_checkpoint,
    ):
        with pytest.raises(RuntimeError) as caught:
            load(model, str(tmp_path))
        words.append(str(caught.value).splitlines()[0].rstrip(":"))
    assert words[0] == words[1]
    assert fingerprint(model) == before
