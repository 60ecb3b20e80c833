"""A load that is known to fit: made before the model changes, then carried out."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import torch

from windlass.torch.assign import Assignment
from windlass.torch.fill import Fill, ReadSettings
from windlass.torch.hooked import HookedResult, Snapshot, load_hooked
from windlass.torch.match import (
    Match,
    match_names,
    refuse_incompatible,
    refuse_meta,
    refuse_unfillable,
    refuse_unlisted,
)
from windlass.torch.slots import Hooked, Slot, walk
from windlass.torch.sources import NameRanges
from windlass.torch.ties import Claim, Ties, find_ties

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from windlass.torch.sources import Source
    from windlass.types import Memory


class LoadPlan(NamedTuple):
    """What goes where. Hooked modules have been loaded; nothing else has changed.

    Attributes:
        source: the checkpoint.
        match: places and names.
        ties: places that share memory.
        assignment: with `assign`, the tensors that are to be put in place.
        missing: names that the model has and the checkpoint lacks, in model order.
        unexpected: names that the checkpoint has and the model lacks, in index order.
    """

    source: Source
    match: Match
    ties: Ties
    assignment: Assignment | None
    missing: list[str]
    unexpected: list[str]

    @property
    def nbytes(self) -> int:
        """Bytes to be read, those of hooked modules not counted."""
        return sum(self.source.nbytes(slot.name) for slot in self.match.present)

    def carry_out(self, settings: ReadSettings, memory: Memory) -> None:
        """Read everything into its place."""
        try:
            if self.assignment:
                self.assignment.run(memory, settings)
            else:
                self._fill(settings)
        except BaseException as error:
            error.add_note("The model is now partly loaded.")
            raise

    def _fill(self, settings: ReadSettings) -> None:
        fills = [Fill(slot.name, slot.tensor) for slot in self.match.present]
        partly, wholly = self.ties.partly_overwritten, self.ties.overwritten
        for one in fills:  # One after another, so that the later name wins.
            if one.name in partly:
                self.source.fill([one], settings)
        rest = [one for one in fills if one.name not in partly and one.name not in wholly]
        self.source.fill(rest, settings)
        # Their memory has changed too, and `copy_` would have told autograd so.
        torch.autograd.graph.increment_version([o.tensor for o in fills if o.name in wholly])

    def conflicts(self, settings: ReadSettings) -> Iterator[tuple[str, str]]:
        """Yield `(earlier, later)` names that share memory and differ in the checkpoint."""
        losers = {**self.ties.partly_overwritten, **self.ties.overwritten}
        for slot in self.match.present:
            if slot.name in losers and not self._holds(slot, settings):
                yield slot.name, losers[slot.name]

    def _holds(self, slot: Slot, settings: ReadSettings) -> bool:
        """Whether a place now has the checkpoint's value, in its own dtype."""
        now = getattr(slot.module, slot.key)
        pieces = self.source.pieces([Fill(slot.name, now)], settings)
        return all(_same_bytes(part, values.to(part.dtype)) for part, values in pieces)


def plan_load(model: nn.Module, source: Source, *, strict: bool, assign: bool) -> LoadPlan:
    """Check everything, and load the modules that load themselves (undone on any error).

    Raises:
        IncompatibleKeys, IndexMismatch, MetaParameter, UnsupportedParameter: it does not fit.
    """
    if strict:
        refuse_unlisted(source.unlisted)
    ranges = NameRanges(source.positions)
    match = match_names(walk(model), source, ranges)
    snapshot = Snapshot(hooked.module for hooked in match.hooked)
    try:
        results = {
            hooked.prefix: _load_hooked(model, hooked, source, ranges, assign=assign)
            for hooked in match.hooked
        }
        ties = find_ties(list(_claims(match, results)))
        missing = _missing(match, results, ties)
        unexpected = _unexpected(match, results, source)
        required = (missing, unexpected) if strict else ([], [])
        refuse_incompatible(model, *required, match.mismatched)
        assignment = _assignment(match, ties, source) if assign else None
        if not assign:
            refuse_unfillable(match.present, source)
    except BaseException:
        snapshot.restore()
        raise
    unexpected += [name for name, _ in source.unlisted]
    return LoadPlan(source, match, ties, assignment, missing, unexpected)


def _load_hooked(
    model: nn.Module, hooked: Hooked, source: Source, ranges: NameRanges, *, assign: bool
) -> HookedResult:
    names = ranges.below(hooked.prefix)
    if not assign:
        for name, tensor in _own_tensors(hooked):
            if tensor.is_meta and name in source.positions:
                refuse_meta(name)
    state = OrderedDict((name, source.tensor(name)) for name in names)
    if source.metadata:
        state._metadata = source.metadata  # type: ignore[attr-defined]
    return load_hooked(hooked, state, model, assign=assign)


def _own_tensors(hooked: Hooked) -> Iterator[tuple[str, torch.Tensor]]:
    state = hooked.module.state_dict(prefix=hooked.prefix, keep_vars=True)
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value):
            yield name, value


def _claims(match: Match, results: dict[str, HookedResult]) -> Iterator[Claim]:
    present = {slot.name for slot in match.present}
    for entry in match.entries:
        if isinstance(entry, Slot):
            yield Claim(entry.name, entry.tensor, entry.name in present)
        else:
            missing = set(results[entry.prefix].missing_keys)
            for name, tensor in _own_tensors(entry):
                yield Claim(name, tensor, name not in missing)


def _missing(match: Match, results: dict[str, HookedResult], ties: Ties) -> list[str]:
    absent = {slot.name for slot in match.absent}
    missing: list[str] = []
    for entry in match.entries:
        if isinstance(entry, Hooked):
            missing += results[entry.prefix].missing_keys
        elif entry.name in absent:
            missing.append(entry.name)
    return [name for name in missing if name not in ties.covered]


def _unexpected(match: Match, results: dict[str, HookedResult], source: Source) -> list[str]:
    unexpected = dict.fromkeys(match.unexpected)
    for result in results.values():
        unexpected.update(dict.fromkeys(result.unexpected_keys))
    last = len(source.positions)  # A hook may have made up a name of its own.
    return sorted(unexpected, key=lambda name: source.positions.get(name, last))


def _assignment(match: Match, ties: Ties, source: Source) -> Assignment:
    covered = [slot for slot in match.absent if slot.name in ties.covered]
    return Assignment(match.present, covered, ties, source)


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    packed = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return packed.reshape(-1).view(torch.uint8)
