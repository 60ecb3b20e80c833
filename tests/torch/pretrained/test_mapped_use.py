"""What is done with a model after loading, where its weights look into the files."""

from __future__ import annotations

import copy
import io
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.mapped import names_mapped
from builders.pretrained import MODELS, assert_same_state, new_model, state_of
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Tokens = MODELS.TinyForTokens
FORMS: dict[str, dict[str, Any]] = {"single": {}, "sharded": {"max_shard_size": "2MB"}}

#: Large enough that a save looks at the files that it replaces, and that they have many pages.
LARGE = {"vocab_size": 3000, "hidden_size": 256}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    new_model("TinyForTokens", **LARGE).save_pretrained(tmp_path, **request.param)
    model = Tokens.from_pretrained(tmp_path, memory="mapped")
    assert names_mapped(model, tmp_path) == set(model.state_dict())
    return model


@pytest.fixture
def state(tmp_path: Path, model: Any) -> dict[str, torch.Tensor]:
    """Return what the files of the model hold."""
    del model
    return state_of(Tokens.from_pretrained(tmp_path, memory="owned"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def in_a_child(work: Callable[[], object]) -> int:
    """Do something in a forked process, which lacks the threads of torch; return its status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def tokens() -> torch.Tensor:
    return torch.arange(24).view(2, 12)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_training_changes_weights_as_it_does_those_with_memory_of_their_own(
    tmp_path: Path, model: Any, kind: type[torch.optim.Optimizer]
) -> None:
    files = files_of(tmp_path)
    owned = Tokens.from_pretrained(tmp_path, memory="owned")
    for one in (model, owned):
        optimizer = kind(one.train().parameters(), lr=0.01)  # type: ignore[call-arg]
        for _ in range(3):
            optimizer.zero_grad()
            one(tokens())[0].square().mean().backward()
            optimizer.step()
    expected = owned.state_dict()
    for name, weight in model.state_dict().items():  # Memory is aligned otherwise: so are sums.
        torch.testing.assert_close(weight, expected[name], msg=name)
    assert names_mapped(model, tmp_path) == set(model.state_dict())
    assert files_of(tmp_path) == files
    again = Tokens.from_pretrained(tmp_path, memory="mapped")
    assert not torch.equal(again.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize(
    "form", [{}, {"max_shard_size": "1MB"}, {"max_shard_size": "2MB", "checksums": True}]
)
@pytest.mark.parametrize("changed", [False, True])
def test_saves_over_its_own_files_again_and_again(
    tmp_path: Path, model: Any, form: dict[str, Any], *, changed: bool
) -> None:
    os.sync()  # What is not on the disk yet stays in the page cache.
    for _ in range(2):
        if changed:
            with torch.no_grad():
                model.lm_head.weight[::7].mul_(1.5)
        wanted = state_of(model)
        model.save_pretrained(tmp_path, durable=True, **form)  # The next one can let go of it.
        assert_same_state(state_of(model), wanted)
        assert_same_state(state_of(Tokens.from_pretrained(tmp_path, memory="owned")), wanted)


def test_a_model_saved_by_others_keeps_its_weights(
    tmp_path: Path, model: Any, state: dict[str, torch.Tensor]
) -> None:
    for seed in (1, 2):
        new_model("TinyForTokens", seed, **LARGE).save_pretrained(tmp_path, max_shard_size="1MB")
    for path in tmp_path.iterdir():
        path.unlink()
    assert_same_state(state_of(model), state)


CASTS: dict[str, Callable[[Any], Any]] = {
    "half": lambda model: model.half(),
    "to dtype": lambda model: model.to(torch.bfloat16),
    "double": lambda model: model.double(),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_cast_models_have_memory_of_their_own(
    tmp_path: Path, model: Any, state: dict[str, torch.Tensor], cast: Callable[[Any], Any]
) -> None:
    again = cast(model)
    wanted = {
        name: one.to(again.dtype) if one.is_floating_point() else one for name, one in state.items()
    }
    assert_same_state(again.state_dict(), wanted)
    assert names_mapped(again, tmp_path) == {"tiny.steps"}  # Integers are not cast.
    assert again.lm_head.weight is again.get_input_embeddings().weight


def test_vocabulary_is_resized(tmp_path: Path, model: Any, state: dict[str, torch.Tensor]) -> None:
    files = files_of(tmp_path)
    for size in (3100, 100):
        model.resize_token_embeddings(size)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        assert model.lm_head.weight.untyped_storage().resizable()
        kept = min(size, 3000)
        assert torch.equal(model.lm_head.weight[:kept], state["lm_head.weight"][:kept])
    assert files_of(tmp_path) == files


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "state dict": lambda model: _with_state(copy.deepcopy(model.state_dict())),
    "load_state_dict": lambda model: _with_state(model.state_dict()),
}


def _with_state(state: dict[str, torch.Tensor]) -> Any:
    model = new_model("TinyForTokens", 5, **LARGE)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_have_memory_of_their_own(
    tmp_path: Path, model: Any, state: dict[str, torch.Tensor], copied: Callable[[Any], Any]
) -> None:
    again = copied(model)
    assert names_mapped(again, tmp_path) == set()
    assert again.lm_head.weight is again.get_input_embeddings().weight
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert_same_state(again.state_dict(), state)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickled_state_is_as_large_as_the_weights(
    model: Any, state: dict[str, torch.Tensor], write: Callable[..., None]
) -> None:
    file = io.BytesIO()
    write(dict(model.state_dict()), file)
    nbytes = sum(one.nbytes for one in {id(one): one for one in model.parameters()}.values())
    # `pickle` stores a storage of two names twice, and each weight with a header of torch.
    limit = nbytes + (model.lm_head.weight.nbytes if write is pickle.dump else 0) + 30_000
    assert nbytes < file.tell() < limit
    file.seek(0)
    again = pickle.load(file) if write is pickle.dump else torch.load(file)
    assert_same_state(again, state)


def test_one_weight_is_saved_alone(model: Any) -> None:
    """No weight drags the file that it is in along."""
    for name, one in model.state_dict().items():
        assert one.untyped_storage().nbytes() == one.nbytes, name
        assert one.storage_offset() == 0


def test_memory_that_is_shared_is_shared(
    tmp_path: Path, model: Any, state: dict[str, torch.Tensor]
) -> None:
    files = files_of(tmp_path)
    model.share_memory()
    assert all(one.is_shared() for one in model.parameters())
    assert_same_state(model.state_dict(), state)
    assert not in_a_child(lambda: model.lm_head.weight.detach().numpy().fill(0.0))
    assert not model.lm_head.weight.any()
    assert files_of(tmp_path) == files


def test_forked_processes_have_their_own_values(
    tmp_path: Path, model: Any, state: dict[str, torch.Tensor]
) -> None:
    files = files_of(tmp_path)

    def check_and_change() -> None:
        values = {name: one.numpy() for name, one in model.state_dict().items()}
        assert all((one == state[name].numpy()).all() for name, one in values.items())
        for one in values.values():
            one.fill(0)

    assert not in_a_child(check_and_change)
    assert_same_state(model.state_dict(), state)
    assert files_of(tmp_path) == files


@pytest.mark.usefixtures("model")
def test_weights_of_another_shape_and_missing_ones_are_new_beside_mapped_ones(
    tmp_path: Path,
) -> None:
    again, info = Tokens.from_pretrained(
        tmp_path,
        memory="mapped",
        vocab_size=17,
        num_layers=3,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    assert info["missing_keys"]
    assert info["mismatched_keys"]
    assert again.lm_head.weight.shape == (17, 256)
    inside = names_mapped(again, tmp_path)
    assert {name for name in again.state_dict() if name not in inside} == {
        "lm_head.weight",
        "tiny.embed.weight",
        *info["missing_keys"],
    }
    again.train()(tokens() % 17)[0].sum().backward()


def test_weights_are_moved_and_come_back(model: Any, state: dict[str, torch.Tensor]) -> None:
    model.to("meta")
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    assert_same_state(model.state_dict(), state)


def test_storages_cannot_be_resized(model: Any) -> None:
    """As those that torch maps itself; who has to take `memory="owned"`."""
    with pytest.raises(RuntimeError, match="resiz"):
        model.lm_head.weight.untyped_storage().resize_(0)


def test_modules_are_replaced(tmp_path: Path, model: Any) -> None:
    model.set_output_embeddings(nn.Linear(256, 5, bias=False))
    model.config.tie_word_embeddings = False
    model.tie_weights()
    assert "lm_head.weight" not in names_mapped(model, tmp_path)
