"""huggingface_hub of this process, told of another hub, cache and login than the environment's."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from hub_server.server import HubServer


@contextmanager
def connected(server: HubServer, patch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """Let huggingface_hub talk to `server`, keep what it fetches under `home`, and never wait."""
    from huggingface_hub import close_session, constants, file_download
    from huggingface_hub.utils import _http

    close_session()
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(home / "cache"),
        "HF_HOME": str(home),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": 4000,  # Where a broken download goes on; 10 MiB in use.
    }.items():
        patch.setattr(constants, name, value)
    patch.delenv("HF_TOKEN", raising=False)
    for module in (_http, file_download):
        patch.setattr(module, "time", SimpleNamespace(time=time.time, sleep=lambda _: None))
    yield
    close_session()


def environment(server: HubServer, home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process that uses `server` as its hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        **more,
    }
