"""`device_map`: where a whole model goes. One device, so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from windlass.errors import NotSupported

if TYPE_CHECKING:
    from torch import nn

#: Words of accelerate for dividing a model among devices.
_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")


def find_device_for(device_map: object) -> torch.device | None:
    """Return the one device that `device_map` names.

    Args:
        device_map: a device, its name or number, a map of module names to one and the same device,
            or `None`.

    Raises:
        NotSupported: several devices, the disk, or a strategy that chooses.
        ValueError: torch knows no such device, or this machine has none.

    Example:
        >>> find_device_for({"": "cpu"})
        device(type='cpu')
    """
    if device_map is None:
        return None
    if isinstance(device_map, Mapping):
        return _check_there(_only_device(device_map), dict(device_map))
    if device_map in _STRATEGIES:
        message = (
            f"device_map={device_map!r}: dividing a model among devices is not there yet; name one "
            'device, such as device_map="cpu" or device_map=0'
        )
        raise NotSupported(message)
    return _check_there(_parse(device_map), device_map)


def _only_device(device_map: Mapping[str, object]) -> torch.device:
    if "disk" in device_map.values():
        message = (
            f"device_map={dict(device_map)!r}: weights are not offloaded to disk yet; name one "
            'device, such as device_map="cpu"'
        )
        raise NotSupported(message)
    devices = {_parse(value) for value in device_map.values()}
    if len(devices) > 1:
        message = (
            f"device_map={dict(device_map)!r}: several devices are not there yet; name one, such "
            'as device_map="cpu"'
        )
        raise NotSupported(message)
    if not devices:
        message = "device_map={}: it should say where the whole model goes, as {'': 'cpu'} does"
        raise ValueError(message)
    return devices.pop()


def check_covers(device_map: object, model: nn.Module) -> None:
    """Make sure that a map of modules says where every weight goes.

    Raises:
        ValueError: it leaves some out.
    """
    if not isinstance(device_map, Mapping) or "" in device_map:
        return
    starts = tuple(f"{name}." for name in device_map)
    names = (*dict(model.named_parameters()), *dict(model.named_buffers()))
    if left := [name for name in names if not f"{name}.".startswith(starts)]:
        message = (
            f"device_map={dict(device_map)!r} does not say where {left} go: name their modules "
            'too, or the whole model, as {"": "cpu"} does'
        )
        raise ValueError(message)


def _check_there(device: torch.device, device_map: object) -> torch.device:
    """Return a device as it is.

    Raises:
        ValueError: this machine has none.
    """
    backend: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(backend, "is_available"):
        count = backend.device_count() if backend.is_available() else 0
        if (device.index or 0) >= count:
            message = (
                f"device_map={device_map!r}: torch finds {count} devices of the kind "
                f'{device.type!r} on this machine; name one that is there, such as "cpu"'
            )
            raise ValueError(message)
    return device


def _parse(value: object) -> torch.device:
    if isinstance(value, torch.device):
        return value
    if isinstance(value, int) and value < 0:
        message = f'device_map={value}: a device has no negative number; "cpu" is the processor'
        raise ValueError(message)
    if isinstance(value, bool):  # To torch, it is the number of a GPU.
        message = f'device_map={value}: it should name a device, such as device_map="cpu"'
        raise ValueError(message)  # noqa: TRY004  (as for all that names none)
    try:
        return torch.device(value)  # type: ignore[call-overload, no-any-return]
    except (RuntimeError, TypeError) as error:
        message = f"device_map={value!r}: torch knows no such device"
        raise ValueError(message) from error
