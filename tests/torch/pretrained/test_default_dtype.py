"""Models of several dtypes, built by several threads: torch has one default dtype for all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from windlass.errors import ModelError
from windlass.torch.pretrained import default_dtype as module
from windlass.torch.pretrained.default_dtype import default_dtype

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(autouse=True)
def _the_default_comes_back() -> Any:
    yield
    assert torch.get_default_dtype() == F32


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose patience after a second."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "PATIENCE", 50)


def made(dtype: torch.dtype | None) -> torch.dtype:
    with default_dtype(dtype):
        return torch.empty(1).dtype


def test_threads_that_want_other_dtypes_take_turns() -> None:
    wanted = [BF16, F16, F32, None] * 8
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(made, wanted)) == [BF16, F16, F32, F32] * 8


def test_parts_of_another_dtype_are_built_in_the_thread_of_the_whole() -> None:
    with default_dtype(BF16):
        assert made(F16) == F16
        assert made(None) == BF16
        assert torch.empty(1).dtype == BF16


def test_a_part_of_another_dtype_waits_for_the_builders_beside_it() -> None:
    both_in, dtypes = threading.Barrier(2), []

    def whole() -> None:
        with default_dtype(BF16):
            both_in.wait()
            dtypes.extend(torch.empty(1).dtype for _ in range(2000))

    def with_part() -> torch.dtype:
        with default_dtype(BF16):
            both_in.wait()
            return made(F16)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(whole), pool.submit(with_part)
        first.result(timeout=60)
        assert second.result(timeout=60) == F16
    assert set(dtypes) == {BF16}


def test_two_builders_that_wait_for_each_other_are_told_at_once() -> None:
    both_in = threading.Barrier(2)

    def build() -> torch.dtype:
        with default_dtype(BF16):
            both_in.wait()
            return made(F16)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(build) for _ in range(2)]
        errors = [one.exception(timeout=60) for one in futures]
    assert sorted(error is None for error in errors) == [False, True]
    told = next(error for error in errors if error)
    assert isinstance(told, ModelError)
    assert "torch.float16" in str(told)
    assert "torch.bfloat16" in str(told)


@pytest.mark.usefixtures("soon")
def test_constructor_that_waits_for_parts_of_another_dtype_is_told() -> None:
    def build() -> list[torch.dtype]:
        with default_dtype(BF16), ThreadPoolExecutor(2) as pool:
            return list(pool.map(made, [F16, F32]))

    with pytest.raises(ModelError, match="in the thread of its constructor"):
        build()


@pytest.mark.usefixtures("soon")
def test_a_builder_that_works_is_waited_for() -> None:
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with default_dtype(BF16):
            inside.set()
            while not done.is_set():
                pass

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait()
    threading.Timer(2, done.set).start()
    assert made(F16) == F16
    worker.join()
