"""Framework names of `safe_open` → what the framework does. Imports only the one asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass.arrays import Adapter


class Framework(NamedTuple):
    """A framework, with a device chosen.

    Attributes:
        adapter: makes arrays from bytes.
        part: `(array, index) → part of it`.
        place: moves an array to the device.
    """

    adapter: Adapter[Any]
    part: Callable[[Any, Any], Any]
    place: Callable[[Any], Any]


def find_framework(name: str, device: Any) -> Framework:  # noqa: ANN401  (torch's kinds of device)
    """Return the framework of that name.

    Raises:
        ValueError: an unknown framework, or a device that it does not know.
    """
    device = "cpu" if device is None else device
    if name in ("pt", "torch", "pytorch"):
        return _torch(device)
    if name in ("np", "numpy"):
        return _numpy(device)
    message = f'framework should be "pt" or "np", found {name!r}'
    raise ValueError(message)


def _torch(device: Any) -> Framework:  # noqa: ANN401
    from windlass.torch.tensors import ADAPTER, find_device

    target = find_device(device)
    return Framework(ADAPTER, lambda tensor, index: tensor[index], lambda t: t.to(target))


def _numpy(device: Any) -> Framework:  # noqa: ANN401
    from windlass.numpy import ADAPTER, index

    if device != "cpu":
        message = f'numpy arrays are on "cpu", found device {device!r}'
        raise ValueError(message)
    return Framework(ADAPTER, index, lambda array: array)
