"""`no_init_weights`, `unwrap_model` and `load_state_dict`, compared with transformers 4.46.3."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from torch import nn
from windlass.errors import (
    GitLfsPointer,
    InvalidHeader,
    InvalidPickle,
    ShardNotFound,
    UnknownFormat,
)
from windlass.modeling_utils import (
    TORCH_INIT_FUNCTIONS,
    load_state_dict,
    no_init_weights,
    unwrap_model,
)
from windlass.torch.initialisation import draws_weights
from windlass.torch.pretrained.build import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oracle.client import Oracle


def _draws() -> bool:
    """Whether a function of torch fills a tensor."""
    return bool(torch.nn.init.constant_(torch.zeros(2), 1.0) is not None)


def test_nothing_is_drawn_inside() -> None:
    with no_init_weights():
        assert not draws_weights()
        assert not _draws()
        assert nn.Linear(2, 2).weight.shape == (2, 2)
    assert draws_weights()
    assert _draws()


def test_nothing_changes_if_it_is_not_enabled() -> None:
    with no_init_weights(_enable=False):
        assert draws_weights()
        assert _draws()


def test_leaving_the_inner_one_does_not_leave_the_outer_one() -> None:
    """In 4.46 the inner one brings the functions of torch back for both."""
    with no_init_weights():
        with no_init_weights():
            pass
        assert not _draws()
        assert not draws_weights()
    assert _draws()


def test_everything_is_back_after_an_error() -> None:
    before = {name: getattr(torch.nn.init, name) for name in TORCH_INIT_FUNCTIONS}
    with pytest.raises(KeyError), no_init_weights():
        raise KeyError
    assert {name: getattr(torch.nn.init, name) for name in before} == before
    assert draws_weights()


def test_a_replaced_function_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    monkeypatch.setattr(torch.nn.init, "normal_", mine)
    with no_init_weights():
        pass
    assert torch.nn.init.normal_ is mine


def test_blocks_of_two_threads_may_end_in_any_order() -> None:
    before = {name: getattr(torch.nn.init, name) for name in TORCH_INIT_FUNCTIONS}
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with no_init_weights():
            first_in.set()
            assert second_in.wait(60)
        first_out.set()

    def second() -> bool:
        assert first_in.wait(60)
        with no_init_weights():
            second_in.set()
            assert first_out.wait(60)
            return _draws()

    with ThreadPoolExecutor(2) as pool:
        ends, drew = pool.submit(first), pool.submit(second)
        ends.result()
        assert not drew.result()
    assert {name: getattr(torch.nn.init, name) for name in before} == before


def test_other_threads_go_on_drawing() -> None:
    with no_init_weights(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(_draws).result()
        assert not _draws()


@pytest.mark.parametrize("wanted", [None, torch.float64])
def test_models_of_two_threads_are_built_one_after_the_other(wanted: Any) -> None:
    """torch has one default dtype: with two at a time, one would get, and leave, the other's."""
    with ThreadPoolExecutor(1) as pool:

        def outer() -> tuple[nn.Module, Any]:
            inner = pool.submit(
                build, lambda: nn.Linear(2, 2), dtype=wanted, device=None, init=False
            )
            wait([inner], timeout=0.2)
            return nn.Linear(2, 2), inner

        model, inner = build(outer, dtype=torch.bfloat16, device=None, init=False)
        assert model.weight.dtype == torch.bfloat16
        assert inner.result().weight.dtype == (wanted or torch.float32)
    assert torch.get_default_dtype() == torch.float32
    assert _draws()


def test_the_switched_functions_are_those_of_446(oracle: Oracle) -> None:
    assert list(TORCH_INIT_FUNCTIONS) == oracle.ask_one("switches.functions", None).value


class _Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # type: ignore[return-value]


_WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda module: module,
    "parallel": nn.DataParallel,
    "parallel twice": lambda module: nn.DataParallel(nn.DataParallel(module)),
    "own": _Wrapper,
    "compiled": _compiled,
    "compiled parallel": lambda module: _compiled(nn.DataParallel(module)),
    "inside": lambda module: nn.Sequential(_Wrapper(module), nn.ReLU()),
    "deep inside": lambda module: nn.Sequential(nn.Sequential(_Wrapper(_Wrapper(module)))),
}


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("wrapper", _WRAPPERS)
def test_model_is_unwrapped_as_by_446(oracle: Oracle, wrapper: str, recursive: Any) -> None:
    theirs = oracle.ask_one("switches.unwrapped", {"wrapper": wrapper, "recursive": recursive})
    unwrapped = unwrap_model(_WRAPPERS[wrapper](nn.Linear(2, 2)), recursive)
    ours = [(name, type(one).__name__) for name, one in unwrapped.named_modules()]
    assert [tuple(pair) for pair in theirs.value] == [
        (name, kind.replace("_Wrapper", "Wrapper")) for name, kind in ours
    ]


def _save(path: Path, metadata: dict[str, str] | None) -> Path:
    safetensors.torch.save_file({"a": torch.arange(3.0)}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("format_name", ["pt", "tf", "flax", "mlx"])
def test_safetensors_of_known_formats_are_read(
    oracle: Oracle, tmp_path: Path, format_name: str
) -> None:
    path = _save(tmp_path / "a.safetensors", {"format": format_name})
    theirs = oracle.ask_one("modules.loaded", str(path)).value
    assert torch.equal(load_state_dict(path)["a"], theirs["a"])


def test_safetensors_of_an_unknown_format_are_refused(oracle: Oracle, tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors", {"format": "np"})
    with pytest.raises(UnknownFormat, match="'np'") as caught:
        load_state_dict(path)
    assert isinstance(caught.value, oracle.ask_one("modules.loaded", str(path)).kind)


@pytest.mark.parametrize("metadata", [None, {"other": "1"}])
def test_safetensors_that_name_no_format_are_read(
    oracle: Oracle, tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = _save(tmp_path / "a.safetensors", metadata)
    assert oracle.ask_one("modules.loaded", str(path)).error
    assert torch.equal(load_state_dict(path)["a"], torch.arange(3.0))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_read(oracle: Oracle, tmp_path: Path, zipped: Any) -> None:
    path = tmp_path / "a.bin"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=zipped)
    theirs = oracle.ask_one("modules.loaded", str(path)).value
    for weights_only in (True, False):
        loaded = load_state_dict(str(path), weights_only=weights_only)
        assert torch.equal(loaded["a"], theirs["a"])


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_tensors_go_where_they_are_wanted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".bin"):
        torch.save({"a": torch.arange(3.0)}, path)
    else:
        _save(path, None)
    loaded = load_state_dict(path, map_location="meta")
    assert (loaded["a"].device.type, loaded["a"].shape) == ("meta", (3,))
    assert load_state_dict(path, map_location=torch.device("cpu"))["a"].sum() == 3


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("code of the file ran",))


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.bin", None, ShardNotFound),
        ("a.safetensors", None, ShardNotFound),
        ("a.bin", b"version https://git-lfs.github.com/spec/v1", GitLfsPointer),
        ("a.bin", b"nonsense", InvalidPickle),
        ("a.safetensors", b"\xff" * 20, InvalidHeader),
    ],
)
def test_bad_file_is_named(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=name):
        load_state_dict(path)


def test_code_of_a_pickle_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.bin"
    torch.save({"a": _Evil()}, path)
    with pytest.raises(InvalidPickle, match="refuses"):
        load_state_dict(path)
    assert capsys.readouterr().out == ""
