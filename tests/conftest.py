"""Rules for every test: no network, warnings are errors, one fixed budget of generated examples."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch
    from builders.loaders import Loaders
    from builders.saver import Saver
    from hub_server import HubServer
    from oracle.client import Oracle

settings.register_profile(
    "default",
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long", settings.get_profile("default"), max_examples=3000, derandomize=False
)
settings.load_profile(os.environ.get("WINDLASS_TEST_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Make warnings errors, also when only a part of the configuration is read."""
    if "error" not in config.getini("filterwarnings"):
        config.addinivalue_line("filterwarnings", "error")


def _refuse_outside(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(sock: socket.socket, address: Any) -> Any:
        is_local = sock.family == getattr(socket, "AF_UNIX", None) or (
            isinstance(address, tuple) and address[0] in {"127.0.0.1", "::1", "localhost"}
        )
        if not is_local:
            pytest.fail(f"a test tried to reach the network: {address}")
        return connect(sock, address)

    return guarded


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Fail a test that connects to anything but this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(socket.socket, "connect", _refuse_outside(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _refuse_outside(socket.socket.connect_ex))
        yield


@pytest.fixture(scope="session")
def loaders() -> Loaders:
    """Return windlass, the hub and transformers as loaders of one tiny model."""
    from builders.loaders import Loaders

    return Loaders()


@pytest.fixture(scope="session")
def saver(loaders: Loaders) -> Iterator[Saver]:
    """Return a process that saves checkpoints of that model."""
    from builders.saver import Saver

    saver = Saver(loaders.shapes)
    yield saver
    saver.close()


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """Return transformers 4.46.3, in a process of its own; see `tests/oracle`."""
    from oracle.client import Oracle

    oracle = Oracle()
    yield oracle
    oracle.close()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    """Return a two-layer model and a folder with a two-shard checkpoint of other values for it."""
    import torch
    from builders.bits import random_tensor
    from builders.sharded import write_model

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    state = {
        name: random_tensor(tuple(tensor.shape), tensor.dtype, seed)
        for seed, (name, tensor) in enumerate(model.state_dict().items())
    }
    return model, write_model(tmp_path / "checkpoint", state)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Return an empty hub, which huggingface_hub talks to; its cache is empty, nobody logged in."""
    from hub_server import HubServer
    from hub_server.client import connected

    with HubServer() as server, connected(server, monkeypatch, tmp_path / "hub-home"):
        yield server


@pytest.fixture
def process_group() -> Iterator[None]:
    """Make this process rank 0 of 2, without a network."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    distributed.destroy_process_group()
