"""Two names of one weight, and a checkpoint that has both: which of them is loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from windlass.torch.fill import Fill
from windlass.torch.pretrained.tying import declared_ties
from windlass.torch.same_values import same_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from windlass.torch.fill import ReadSettings
    from windlass.torch.sources import Source


class Dropped(NamedTuple):
    """A name that is not loaded, for another name of the same weight is.

    Attributes:
        name: in the model.
        stored: in the checkpoint.
        loaded: the name that is loaded.
        kept: that name in the checkpoint.
        tensor: the weight.
    """

    name: str
    stored: str
    loaded: str
    kept: str
    tensor: torch.Tensor


class TiedValues(NamedTuple):
    """What a checkpoint gives to names that are not loaded."""

    source: Source
    dropped: list[Dropped]

    @classmethod
    def of(cls, source: Source, dropped: list[Dropped]) -> TiedValues:
        """Leave out those that the checkpoint has as the very bytes that are loaded."""
        return cls(source, [one for one in dropped if not source.is_same(one.stored, one.kept)])

    def find_conflicts(self, settings: ReadSettings) -> Iterator[tuple[str, str]]:
        """Yield `(name that was not loaded, name that was)` where their values differ.

        It takes a buffer of memory, however large the weights are.
        """
        for one in self.dropped:
            if self._differs(one, settings):
                yield one.name, one.loaded

    def _differs(self, one: Dropped, settings: ReadSettings) -> bool:
        pieces = self.source.pieces([Fill(one.stored, one.tensor.detach())], settings)
        return not all(same_values(part, values) for _, part, values in pieces)


def drop_tied(
    model: nn.Module, state: dict[str, Any], stored: dict[str, str], source: Source
) -> TiedValues:
    """Take out of `stored` the names that the model declares to be tied to others in it.

    The model's own name of a weight is loaded, whatever the order of names.
    """
    names_of: dict[int, list[str]] = {}
    for name in stored:
        if isinstance(state[name], torch.Tensor):
            names_of.setdefault(id(state[name]), []).append(name)
    groups = [names for names in names_of.values() if len(names) > 1]
    searches = [re.compile(pattern).search for pattern in declared_ties(model)] if groups else []
    dropped: list[Dropped] = []
    for names in groups:
        own = [name for name in names if not any(search(name) for search in searches)]
        if len(own) == 1:
            dropped += [
                Dropped(name, stored.pop(name), own[0], stored[own[0]], state[name])
                for name in names
                if name != own[0]
            ]
    return TiedValues.of(source, dropped)
