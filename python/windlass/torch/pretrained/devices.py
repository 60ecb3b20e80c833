"""`device_map`: where a whole model goes. One device, so far."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from windlass.errors import NotSupported

#: Words of accelerate for dividing a model among devices.
_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")


def find_device_for(device_map: object) -> torch.device | None:
    """Return the one device that `device_map` names.

    Args:
        device_map: a device, its name or number, a map of module names to one and the same device
            that has `""`, or `None`.

    Raises:
        NotSupported: several devices, the disk, or a strategy that chooses.
        ValueError: torch knows no such device.

    Example:
        >>> find_device_for({"": "cpu"})
        device(type='cpu')
    """
    if device_map is None:
        return None
    if isinstance(device_map, Mapping):
        return _only_device(device_map)
    if device_map in _STRATEGIES:
        message = (
            f"device_map={device_map!r}: dividing a model among devices is not there yet; name one "
            'device, such as device_map="cpu" or device_map=0'
        )
        raise NotSupported(message)
    return _parse(device_map)


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
    if "" not in device_map:
        message = (
            'device_map should say where the whole model goes, as {"": "cpu"} does; found '
            f"{dict(device_map)!r}"
        )
        raise ValueError(message)
    return devices.pop()


def _parse(value: object) -> torch.device:
    if isinstance(value, torch.device):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        message = f'device_map={value}: a device has no negative number; "cpu" is the processor'
        raise ValueError(message)
    try:
        return torch.device(value)  # type: ignore[call-overload, no-any-return]
    except (RuntimeError, TypeError) as error:
        message = f"device_map={value!r}: torch knows no such device"
        raise ValueError(message) from error
