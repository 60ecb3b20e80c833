"""What `save_pretrained` writes is what 4.46.3 writes: files, names, dtypes, bytes, config."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.bits import bits
from builders.pretrained import KINDS, new_model, state_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.client import Answer, Oracle

#: Of generations of a tied model's words; the last one ties nothing that is declared.
TIES = (["lm_head.weight"], ["embed.weight", "lm_head.weight"], [r"lm_head\.weight$"], [])


@dataclass(frozen=True)
class Case:
    """A model, and how it is saved."""

    model: str
    config: dict[str, Any]
    dtype: str
    ties: list[str]
    ignored: list[str] | None
    left_out: int | None
    options: dict[str, Any]
    seed: int

    @property
    def attributes(self) -> dict[str, Any]:
        return {"_tied_weights_keys": self.ties, "_keys_to_ignore_on_save": self.ignored}

    def build(self) -> Any:
        """Return our model."""
        model = new_model(self.model, self.seed, **self.config).to(getattr(torch, self.dtype))
        model.__class__ = type(self.model, (type(model),), self.attributes)
        return model


def cases() -> st.SearchStrategy[Case]:
    """Draw a case."""
    config = st.fixed_dictionaries(
        {
            "head_bias": st.booleans(),
            "tie_word_embeddings": st.booleans(),
            "num_layers": st.integers(0, 4),
            "hidden_size": st.integers(1, 9),
        },
        optional={
            "bos_token_id": st.integers(0, 5),
            "id2label": st.just({0: "no", 1: "yes", 2: "perhaps"}),
            "unknown": st.sampled_from([None, 1.5, "text", [1, {"a": []}], {"b": None}]),
            "pruned_heads": st.just({}),
            "output_attentions": st.booleans(),
        },
    )
    options = st.fixed_dictionaries(
        {"safe_serialization": st.sampled_from([True, True, False])},
        optional={
            "max_shard_size": st.sampled_from([100, 300, "0.4KB", "1KB", "5GB"]),
            "variant": st.sampled_from(["fp16", "a.b"]),
        },
    )
    return st.builds(
        Case,
        model=st.sampled_from(KINDS),
        config=config,
        dtype=st.sampled_from(["float32", "float16", "bfloat16", "float64"]),
        ties=st.sampled_from(TIES),
        ignored=st.sampled_from([None, ["steps"], ["tiny.gain", "lm_head.weight"]]),
        left_out=st.none() | st.integers(0, 20),
        options=options,
        seed=st.integers(0, 1000),
    )


def content(folder: Path) -> dict[str, Any]:
    """Return what each file of a folder says."""
    return {path.name: _content(path) for path in folder.iterdir()}


def _content(path: Path) -> Any:
    if path.name.endswith(".json"):
        return json.loads(path.read_text())
    if path.name.endswith(".safetensors"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        return metadata, _plain(load_file(path))
    return _plain(torch.load(path, weights_only=True))


def _plain(state: dict[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (one.dtype, tuple(one.shape), bits(one)) for name, one in state.items()}


def compare(case: Case, options: dict[str, Any], ours: Path, theirs: Path, answer: Answer) -> None:
    if answer.error:
        with pytest.raises(answer.kind):
            case.build().save_pretrained(ours, **options)
        assert not ours.exists() or not any(ours.iterdir())
        return
    case.build().save_pretrained(ours, **options)
    mine, expected = content(ours), content(theirs)
    for name in mine:
        if ".index." in name:
            assert mine[name]["metadata"].pop("total_parameters") > 0
    assert mine == expected
    config = "config.json"
    assert (ours / config).read_text() == (theirs / config).read_text()


def test_index_counts_the_parameters(tmp_path: Path) -> None:
    model = new_model("TinyForTokens")
    model.save_pretrained(tmp_path, max_shard_size=300)
    metadata = content(tmp_path)["model.safetensors.index.json"]["metadata"]
    saved = model.num_parameters() + model.tiny.steps.numel()
    assert metadata["total_parameters"] == saved


def test_state_dict_without_a_weight_replaces_the_checkpoint(tmp_path: Path) -> None:
    model = new_model()
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, state_dict={})
    assert content(tmp_path)["model.safetensors"] == ({"format": "pt"}, {})


@pytest.mark.parametrize("size", [-1, "-1MB", "10 parsecs"])
def test_size_that_is_none_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(ValueError, match="a size should be"):
        new_model().save_pretrained(tmp_path / "m", max_shard_size=size)
    assert not (tmp_path / "m").exists()
    new_model().save_pretrained(tmp_path / "m", max_shard_size="0.4KiB")


@pytest.mark.parametrize("variant", ["", "a/b"])
def test_variant_that_is_no_part_of_a_name_is_refused(tmp_path: Path, variant: str) -> None:
    with pytest.raises(ValueError, match="variant should be"):
        new_model().save_pretrained(tmp_path / "m", variant=variant)
    assert not (tmp_path / "m").exists()


@pytest.mark.timeout(600)
@settings(max_examples=2, phases=[Phase.generate])  # A case is small enough as it is.
@given(st.lists(cases(), min_size=20, max_size=20))
def test_saved_files_are_those_of_446(
    tmp_path_factory: pytest.TempPathFactory, oracle: Oracle, drawn: list[Case]
) -> None:
    asked, folders = [], []
    for case in drawn:
        folder = tmp_path_factory.mktemp("case")
        state = state_of(case.build())
        options = dict(case.options)
        if case.left_out is not None:
            kept = [name for place, name in enumerate(state) if place != case.left_out]
            options["state_dict"] = {name: state[name] for name in kept}
        folders.append((folder, options))
        asked.append(
            {
                "folder": str(folder / "theirs"),
                "model": case.model,
                "config": case.config,
                "attributes": case.attributes,
                "dtype": case.dtype,
                "state": state,
                "options": options,
            }
        )
    answers = oracle.ask("pretrained.save", asked)
    for case, (folder, options), answer in zip(drawn, folders, answers, strict=True):
        compare(case, options, folder / "ours", folder / "theirs", answer)
