"""Tensors → pickles of torch: what may be saved, copied meanwhile, and how one file is written."""

from __future__ import annotations

import copy
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import torch
from torch.nn.parameter import is_lazy

from windlass.errors import SaveFailed, UnsupportedTensor
from windlass.names import check_text
from windlass.refusals import refusal
from windlass.torch.storages import get_torch_storage_id, get_torch_storage_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Buffer

#: Bytes that are written at once: between two parts a save can be told to stop.
_PART_BYTES = 16 << 20


def pickled_values(named: Iterable[tuple[str, object]]) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict that is to be pickled.

    Raises:
        InvalidName: a name that is not text, which no loader takes.
        UnsupportedTensor: no tensor, or one without values.
    """
    values: dict[str, torch.Tensor] = {}
    for name, value in named:
        check_text(f"tensor `{name}`", name)
        if not isinstance(value, torch.Tensor) or is_lazy(value) or value.is_meta:
            found = (
                "one without values" if isinstance(value, torch.Tensor) else type(value).__name__
            )
            message = f"tensor `{name}`: expected a tensor with values, found {found}"
            raise UnsupportedTensor(message)
        values[name] = value
    return values


def copy_to_host(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies in host memory, which share among each other what the originals share."""
    leaves = {name: one if one.is_leaf else one.detach() for name, one in values.items()}
    storages: dict[int, torch.UntypedStorage] = {}
    copies: dict[int, Any] = {}
    for one in leaves.values():
        if _is_plain(one):
            copies[id(one)] = _copy_plain(one, storages)
        elif one.device.type != "cpu":
            copies[id(one)] = one.detach().cpu()
    return copy.deepcopy(leaves, copies)  # Of the others, and of them alone.


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is what its storage holds, and no more."""
    is_plain_type = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return is_plain_type and tensor.layout is torch.strided and not tensor.is_quantized


def _copy_plain(tensor: torch.Tensor, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    """Copy a tensor; of each storage there is one copy."""
    own = tensor.untyped_storage()
    if own._cdata not in storages:
        source = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        source.set_(own, 0, (own.nbytes(),), (1,))
        target = torch.empty(own.nbytes(), dtype=torch.uint8, device="cpu")
        storages[own._cdata] = target.copy_(source).untyped_storage()
    taken = torch.empty(0, dtype=tensor.dtype, device="cpu")
    taken.set_(storages[own._cdata], tensor.storage_offset(), tensor.shape, tensor.stride())
    taken = taken.conj() if tensor.is_conj() else taken
    taken = torch._neg_view(taken) if tensor.is_neg() else taken
    if isinstance(tensor, torch.nn.Parameter):
        taken = torch.nn.Parameter(taken, requires_grad=tensor.requires_grad)
    taken.requires_grad_(tensor.requires_grad)
    taken.__dict__.update(copy.deepcopy(tensor.__dict__))
    return taken


def pickled_bytes(values: Iterable[torch.Tensor]) -> int:
    """Return the bytes of all storages, each once: what a pickle takes, less its own words."""
    storages = ((get_torch_storage_id(one) or id(one), one) for one in values)
    return sum(map(get_torch_storage_size, dict(storages).values()))


def write_pickle(
    values: Mapping[str, torch.Tensor], path: str, tell: Callable[[int], object] | None
) -> None:
    """Write one file, in which tensors that share memory go on sharing it.

    Args:
        values: tensors by name.
        path: the file.
        tell: called with the bytes written so far; what it raises ends the save.

    Raises:
        SaveFailed: the system refused; `NoSpaceLeft` if for want of room.
    """
    output = None
    try:
        with open(path, "wb") as file:
            output = _Output(file, path, tell)
            torch.save(values, cast("IO[bytes]", output))
    except BaseException as error:
        if output is not None and output.error is not None:
            raise output.error from output.error.__cause__
        if isinstance(error, OSError):
            raise refusal(path, "writing failed", error) from error
        if isinstance(error, RuntimeError):
            message = f"`{path}`: torch.save failed: {error}"
            raise SaveFailed(message) from error
        raise


class _Output:
    """A file for `torch.save`, which hands over every storage as it lies in memory, in one piece.

    It is written in parts, so that progress can be told and the save be ended between two of them.
    torch goes on after an error, to close its archive, and what comes out of it in the end may be
    another error: the first is kept here, and nothing is written after it.
    """

    def __init__(self, file: BinaryIO, path: str, tell: Callable[[int], object] | None) -> None:
        self._file, self._path, self._tell = file, path, tell
        self._written = 0
        self.error: BaseException | None = None

    def write(self, data: Buffer) -> int:
        """Write all of it."""
        view = memoryview(data)
        try:
            if self.error is None:
                self._write(view)
        except BaseException as error:
            self.error = error
            raise
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: the file is closed right after."""

    def _write(self, view: memoryview) -> None:
        for start in range(0, view.nbytes, _PART_BYTES):
            part = view[start : start + _PART_BYTES]
            try:
                self._file.write(part)
            except OSError as error:
                raise refusal(self._path, "writing failed", error) from error
            self._written += part.nbytes
            if self._tell is not None:
                self._tell(self._written)
