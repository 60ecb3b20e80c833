"""Proxies for the requests of one call. huggingface_hub knows them only for the whole process."""

from __future__ import annotations

import importlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from windlass.hub.library import hub_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_one_at_a_time = threading.RLock()


@contextmanager
def through(proxies: Mapping[str, str] | None) -> Iterator[None]:
    """Send what huggingface_hub asks through these proxies; afterwards as before.

    Args:
        proxies: proxy by protocol (`"http"`, `"https"`, `"all"`), or by protocol and host
            (`"https://host"`). Calls with proxies take turns.
    """
    if not proxies:
        yield
        return
    library = hub_library()
    with _one_at_a_time:
        before = hub_library("huggingface_hub.utils._http")._GLOBAL_CLIENT_FACTORY
        library.set_client_factory(lambda: _client_like(before, proxies))
        try:
            yield
        finally:
            library.set_client_factory(before)


def _client_like(factory: Callable[[], Any], proxies: Mapping[str, str]) -> Any:  # noqa: ANN401
    """Return a client as the factory makes it, but with proxies."""
    usual = factory()
    httpx = importlib.import_module(type(usual).__module__.partition(".")[0])
    client = httpx.Client(
        event_hooks=usual.event_hooks,
        follow_redirects=usual.follow_redirects,
        timeout=usual.timeout,
        headers=usual.headers,
        mounts={
            _pattern(where): httpx.HTTPTransport(proxy=_address(proxy))
            for where, proxy in proxies.items()
        },
    )
    usual.close()
    return client


def _pattern(where: str) -> str:
    return where if "://" in where else f"{where}://"


def _address(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"
