"""`assign=True`: loaded tensors take the place of a model's, as in `load_state_dict`.

Names that were one tensor stay one tensor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.nn.parameter import Parameter

from windlass.errors import UnsupportedParameter
from windlass.memory import refuse_beyond_limit
from windlass.torch.fill import Fill
from windlass.torch.tensors import new_tensor

if TYPE_CHECKING:
    from collections.abc import Hashable

    import torch

    from windlass.torch.fill import ReadSettings
    from windlass.torch.slots import Slot
    from windlass.torch.sources import Source
    from windlass.torch.ties import Ties
    from windlass.types import Memory


class Assignment:
    """Which loaded tensor each place gets. Making one checks everything and changes nothing.

    Args:
        present: places that the checkpoint names, in model order.
        covered: places that it does not name, and that are tied to ones it does.
        ties: who is tied to whom.
        source: the checkpoint.

    Raises:
        UnsupportedParameter: a tie by view would break, or a parameter that requires a gradient
            would become one of integers.
    """

    def __init__(
        self, present: list[Slot], covered: list[Slot], ties: Ties, source: Source
    ) -> None:
        self._source = source
        self._slots = [*present, *covered]
        self._winners = {_identity(slot.tensor): slot for slot in present}
        _refuse_mixed_groups({slot.name for slot in self._slots}, ties)
        for slot in self._slots:
            self._check_tie(slot, ties)
            self._check_gradient(slot)

    def load(self, memory: Memory, settings: ReadSettings) -> dict[str, torch.Tensor]:
        """Load the tensors; the model does not change."""
        names = [slot.name for slot in self._winners.values()]
        return _load(self._source, names, memory, settings)

    def put(self, loaded: dict[str, torch.Tensor]) -> None:
        """Put loaded tensors into the model, all or none; what was one object stays one object."""
        made: dict[int, torch.Tensor] = {}
        ready: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        for slot in self._slots:
            old = slot.tensor
            if id(old) not in made:
                data = loaded[self._winners[_identity(old)].name].detach().view(old.shape)
                grad = old.requires_grad
                new = Parameter(data, requires_grad=grad) if isinstance(old, Parameter) else data
                made[id(old)] = new
            module = slot.module
            is_parameter = slot.key in module._parameters
            table: dict[str, Any] = module._parameters if is_parameter else module._buffers
            ready.append((table, slot.key, made[id(old)]))
        before = [(table, key, table[key]) for table, key, _ in ready]
        try:
            for table, key, new in ready:
                table[key] = new
        except BaseException:  # Ctrl-C.
            for table, key, old in before:
                table[key] = old
            raise

    def _check_tie(self, slot: Slot, ties: Ties) -> None:
        winner = self._winners.get(_identity(slot.tensor))
        other = ties.overwritten.get(slot.name) or ties.partly_overwritten.get(slot.name)
        if winner is None or (other and winner.name == slot.name):
            message = (
                f"`{slot.name}` is a view of the memory of `{other or 'another name'}`: "
                "assign=True would break that tie; load without it"
            )
            raise UnsupportedParameter(message)

    def _check_gradient(self, slot: Slot) -> None:
        dtype = self._source.layout(self._winners[_identity(slot.tensor)].name).dtype
        if slot.tensor.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
            message = (
                f"`{slot.name}` requires a gradient, which {dtype} of the checkpoint cannot have"
            )
            raise UnsupportedParameter(message)


def _refuse_mixed_groups(own: set[str], ties: Ties) -> None:
    """A module that loads itself replaces tensors one by one, which would break its ties."""
    for group in ties.groups:
        others = [name for name in group if name not in own]
        ours = [name for name in group if name in own]
        if others:
            names = (*ours, *others)
            message = (
                f"`{names[0]}` and `{names[1]}` share memory, and one of them is not in the "
                "checkpoint, or is loaded by its module's own code: assign=True would break that "
                "tie; load without it"
            )
            raise UnsupportedParameter(message)


def _identity(tensor: torch.Tensor) -> Hashable:
    """What is equal for names that are one tensor, and for views of one memory that are alike."""
    if tensor.is_meta or not tensor.numel():
        return id(tensor)
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def _load(
    source: Source, names: list[str], memory: Memory, settings: ReadSettings
) -> dict[str, torch.Tensor]:
    if memory == "mapped":
        mapped = {name: source.tensor(name) for name in names}
        source.prefetch(names, settings.prefetch)
        return mapped
    layouts = {name: source.layout(name) for name in names}
    nbytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in layouts.values())
    refuse_beyond_limit(nbytes, f"{len(names)} tensors to be assigned")
    loaded = {
        name: new_tensor(f"tensor `{name}`", shape, dtype)
        for name, (dtype, shape) in layouts.items()
    }
    fills = [Fill(name, tensor) for name, tensor in loaded.items()]
    source.fill(fills, settings._replace(fresh=True))
    return loaded
