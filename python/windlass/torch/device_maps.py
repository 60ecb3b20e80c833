"""Device maps: which device each tensor goes to, and which files hold nothing that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass.errors import NoDevice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def expand_device_map(
    device_map: Mapping[str, Any], param_names: Iterable[str], start_prefix: str
) -> dict[str, Any]:
    """Return the device of each name, given those of modules.

    Args:
        device_map: devices by module or tensor; `""` is the whole model. Where several fit, the
            last one counts.
        param_names: names of the checkpoint.
        start_prefix: what those begin with and the model's own names do not; others are left out.

    Example:
        >>> expand_device_map({"": 0, "head": "cpu"}, ["bert.head.weight", "bert.w"], "bert.")
        {'head.weight': 'cpu', 'w': 0}
    """
    names = _without_prefix(param_names, start_prefix)
    return {
        name: device_map[module]
        for module in device_map
        for name in names
        if module in {"", name} or name.startswith(f"{module}.")
    }


def get_disk_only_shard_files(
    device_map: Mapping[str, Any], sharded_metadata: Mapping[str, Any], start_prefix: str
) -> list[str]:
    """Return the files of which every tensor stays on the disk.

    Args:
        device_map: devices by module or tensor, of all that is in the checkpoint.
        sharded_metadata: an index: `weight_map` has the file of each name.
        start_prefix: as for `expand_device_map`.

    Raises:
        NoDevice: the map has no device for a tensor, nor for a module it is in.

    Example:
        >>> weight_map = {"a.w": "1.bin", "b.w": "1.bin", "b.x": "2.bin"}
        >>> get_disk_only_shard_files({"a": 0, "b": "disk"}, {"weight_map": weight_map}, "")
        ['2.bin']
    """
    devices: dict[str, set[Any]] = {}
    for name, file in sharded_metadata["weight_map"].items():
        if name.startswith(start_prefix):
            device = device_of(name[len(start_prefix) :], device_map)
            devices.setdefault(file, set()).add(device)
    return [file for file, found in devices.items() if found == {"disk"}]


def device_of(name: str, device_map: Mapping[str, Any]) -> Any:  # noqa: ANN401  (any device)
    """Return the device of a tensor: its own, or that of the innermost module it is in.

    Args:
        name: the tensor.
        device_map: devices by module or tensor.

    Raises:
        NoDevice: the map has none for it.

    Example:
        >>> device_of("head.weight", {"": 0, "head": "cpu"})
        'cpu'
    """
    place = name
    while place and place not in device_map:
        place = place.rpartition(".")[0]
    if place not in device_map:
        message = f"device_map: no device for tensor `{name}`, nor for any module it is in"
        raise NoDevice(message)
    return device_map[place]


def _without_prefix(names: Iterable[str], prefix: str) -> list[str]:
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]
