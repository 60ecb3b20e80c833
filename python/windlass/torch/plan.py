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
    refuse_foreign,
    refuse_incompatible,
    refuse_unfillable,
    refuse_unlisted,
    refuse_unwritable,
)
from windlass.torch.same_values import same_values
from windlass.torch.slots import Hooked, Slot, walk
from windlass.torch.sources import NameRanges
from windlass.torch.ties import Claim, Ties, find_ties
from windlass.torch.touched import Touched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from windlass.torch.sources import Source
    from windlass.types import Memory


class HookedLoader(NamedTuple):
    """Loads modules that load themselves, each with its part of the checkpoint."""

    model: nn.Module
    source: Source
    ranges: NameRanges
    assign: bool
    memory: Memory

    def refuse(self, hooked: Hooked) -> None:
        """Raise for tensors of a module that torch would fail to fill, or pretend to."""
        for name, tensor in () if self.assign else own_tensors(hooked):
            if name in self.source.positions:
                refuse_unwritable(name, tensor)

    def load(self, hooked: Hooked) -> HookedResult:
        """Load a module."""
        names = self.ranges.below(hooked.prefix)
        state = OrderedDict((name, self.source.tensor(name)) for name in names)
        if self.memory == "owned" and self.assign:
            state = OrderedDict((name, tensor.clone()) for name, tensor in state.items())
        if self.source.metadata:
            state._metadata = self.source.metadata  # type: ignore[attr-defined]
        return load_hooked(hooked, state, self.model, assign=self.assign)


def own_tensors(hooked: Hooked) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a hooked module's state, with full names."""
    state = hooked.module.state_dict(prefix=hooked.prefix, keep_vars=True)
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value):
            yield name, value


class LoadPlan(NamedTuple):
    """What goes where. Hooked modules have been loaded; nothing else has changed.

    Attributes:
        source: the checkpoint.
        match: places and names.
        ties: places that share memory.
        hooked_loader: loads the modules that load themselves.
        assignment: with `assign`, the tensors that are to be put in place.
        missing: names that the model has and the checkpoint lacks, in model order.
        unexpected: names that the checkpoint has and the model lacks, in index order.
    """

    source: Source
    match: Match
    ties: Ties
    hooked_loader: HookedLoader
    assignment: Assignment | None
    missing: list[str]
    unexpected: list[str]

    @property
    def nbytes(self) -> int:
        """Bytes to be read into places that nobody else writes to: what progress counts."""
        return sum(self.source.nbytes(one.name) for one in self._fills() if self._is_alone(one))

    @property
    def read_again(self) -> set[str]:
        """Names that are read more than once: in the order of modules, or to be compared."""
        groups = self.ties.groups if self.match.hooked else []
        return {*self.ties.losers, *(name for group in groups for name in group)}

    def carry_out(self, settings: ReadSettings) -> None:
        """Read everything into its place."""
        touched = Touched()
        try:
            if self.assignment:
                self.assignment.put(self.assignment.load(self.hooked_loader.memory, settings))
            else:
                self._fill(settings._replace(touched=touched))
        except BaseException as error:
            touched.add(self._hooked_names(), whole=True)
            error.add_note(touched.note())
            raise

    def _fills(self) -> list[Fill]:
        return [Fill(slot.name, slot.tensor) for slot in self.match.present]

    def _is_alone(self, one: Fill) -> bool:
        return one.name not in self.ties.losers

    def _fill(self, settings: ReadSettings) -> None:
        replayed = self._replay(settings._replace(tell=None))
        self.source.fill([one for one in self._fills() if self._is_alone(one)], settings)
        # The memory of those skipped has changed too, and `copy_` would have told autograd so.
        torch.autograd.graph.increment_version(replayed)

    def _replay(self, settings: ReadSettings) -> list[torch.Tensor]:
        """Fill plain names that later names write to, in model order; return those skipped.

        Hooked modules of such a group have been loaded already: what they hold is put back when
        it is their turn, for a hook must not run twice.
        """
        losers = self.ties.losers
        plain = {slot.name: slot.tensor for slot in self.match.present}
        groups = [group for group in self.ties.groups if not plain.keys().isdisjoint(group)]
        groups = [group for group in groups if any(n in plain and n in losers for n in group)]
        hooked = self._hooked_tensors() if groups else {}
        skipped: list[torch.Tensor] = []
        for group in groups:
            held = {name: hooked[name].clone() for name in group if name in hooked}
            for name in group:
                if name in held:
                    hooked[name].copy_(held[name])
                elif not held and self.ties.overwritten.get(name) in plain:
                    skipped.append(plain[name])
                elif name in plain and (held or name in losers):
                    self.source.fill([Fill(name, plain[name])], settings)
        return skipped

    def _hooked_names(self) -> list[str]:
        """Return the names that hooked modules have loaded from the checkpoint."""
        names = (name for hooked in self.match.hooked for name, _ in own_tensors(hooked))
        return [name for name in names if name in self.source.positions]

    def _hooked_tensors(self) -> dict[str, torch.Tensor]:
        """Return what hooked modules have loaded from the checkpoint, without gradient."""
        tensors = (pair for hooked in self.match.hooked for pair in own_tensors(hooked))
        return {name: tensor.detach() for name, tensor in tensors if name in self.source.positions}

    def conflicts(self, settings: ReadSettings) -> Iterator[tuple[str, str]]:
        """Yield `(earlier, later)` names that share memory and differ in the checkpoint."""
        losers = self.ties.losers
        if not losers:
            return
        now = {slot.name: getattr(slot.module, slot.key) for slot in self.match.present}
        for hooked in self.match.hooked:
            now.update(own_tensors(hooked))
        fills = [
            Fill(name, now[name])
            for name in losers
            if name in now and self._is_comparable(name, now[name])
        ]
        differing = self._differing(fills, settings)
        yield from ((one.name, losers[one.name]) for one in fills if one.name in differing)

    def _is_comparable(self, name: str, now: torch.Tensor) -> bool:
        """Whether a place has the shape of the file: a hook may have reshaped it."""
        shape = self.source.layout(name).shape
        return now.shape == shape or (shape == (1,) and not now.shape)

    def _differing(self, fills: list[Fill], settings: ReadSettings) -> set[str]:
        """Return the names whose places have other values than the checkpoint, in their dtype."""
        differing: set[str] = set()
        try:
            for name, part, values in self.source.pieces(fills, settings):
                if part.numel() and name not in differing and not same_values(part, values):
                    differing.add(name)
        except BaseException as error:
            error.add_note("The model is loaded; it was compared where names share memory.")
            raise
        return differing


def plan_load(
    model: nn.Module,
    source: Source,
    *,
    strict: bool,
    assign: bool,
    memory: Memory,
    undo: bool = True,
) -> LoadPlan:
    """Check everything, and load the modules that load themselves (undone on any error).

    With `undo=False`, for a model that nobody keeps after an error, such modules take no memory
    for their former state.

    Raises:
        IncompatibleKeys, IndexMismatch, MetaParameter, UnsupportedParameter: it does not fit.
    """
    if strict:
        refuse_unlisted(source.unlisted)
    ranges = NameRanges(source.positions)
    match = match_names(walk(model), source, ranges)
    refuse_foreign(match.present)
    loader = HookedLoader(model, source, ranges, assign, memory)
    if match.hooked:  # What is known to be wrong is said before any hook runs.
        refuse_incompatible(model, [], match.unexpected if strict else [], match.mismatched)
        for hooked in match.hooked:
            loader.refuse(hooked)
    tensors = {hooked.prefix: list(own_tensors(hooked)) for hooked in match.hooked}
    snapshots: list[Snapshot] = []
    try:
        results = {}
        for hooked in match.hooked:
            if undo:
                snapshots.append(Snapshot(hooked.module))
            results[hooked.prefix] = loader.load(hooked)
        ties = find_ties(list(_claims(match, tensors, results, source)))
        missing = _missing(match, results, ties)
        unexpected = _unexpected(match, results, source)
        required = (missing, unexpected) if strict else ([], [])
        refuse_incompatible(model, *required, match.mismatched)
        assignment = _assignment(match, ties, source) if assign else None
        if not assign:
            refuse_unfillable(match.present, source)
    except BaseException:
        for snapshot in reversed(snapshots):
            snapshot.restore()
        raise
    unexpected += [name for name, _ in source.unlisted]
    return LoadPlan(source, match, ties, loader, assignment, missing, unexpected)


def _claims(
    match: Match,
    tensors: dict[str, list[tuple[str, torch.Tensor]]],
    results: dict[str, HookedResult],
    source: Source,
) -> Iterator[Claim]:
    for entry in match.entries:
        if isinstance(entry, Slot):
            yield Claim(entry.name, entry.tensor, entry.name in source.positions)
        else:
            missing = set(results[entry.prefix].missing_keys)
            now = dict(own_tensors(entry))
            for name, tensor in tensors[entry.prefix]:
                # What a module made up, or put in place of the tensor that others are tied to,
                # covers nobody else.
                written = name in source.positions and name not in missing
                yield Claim(name, tensor, written and _is_same_memory(now.get(name), tensor))


def _is_same_memory(now: torch.Tensor | None, then: torch.Tensor) -> bool:
    if now is None or now is then:
        return now is then
    if now.device != then.device or now.is_meta or {now.layout, then.layout} != {torch.strided}:
        return False
    return not now.is_quantized and not then.is_quantized and bool(now.is_set_to(then))


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
