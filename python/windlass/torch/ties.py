"""Names that share memory: what a checkpoint covers without naming it, and who writes last.

The judgement, exact to the byte, is the engine's (`windlass_core::overlap`); it is asked about
names whose address ranges touch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from windlass import _rust
from windlass.torch.spans import find_spans

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


class Claim(NamedTuple):
    """A name of the model, its tensor, and whether the checkpoint has it."""

    name: str
    tensor: torch.Tensor
    present: bool


@dataclass(frozen=True)
class Ties:
    """Names that need care; all others stand alone.

    Attributes:
        covered: absent from the checkpoint, but all of their memory is written by other names.
        overwritten: name → the later name that writes to all of its memory.
        partly_overwritten: name → the later name that writes to part of its memory.
        groups: names whose memory touches, in model order.
    """

    covered: set[str]
    overwritten: dict[str, str]
    partly_overwritten: dict[str, str]
    groups: list[list[str]]

    @cached_property
    def losers(self) -> dict[str, str]:
        """Present names that do not have their memory to themselves → the later name."""
        return {**self.partly_overwritten, **self.overwritten}


def find_ties(claims: list[Claim]) -> Ties:
    """Judge the names of a model, given in model order."""
    ties = Ties(set(), {}, {}, [])
    for cluster in _clusters(claims):
        ties.groups.append([claim.name for claim in cluster])
        views = [_view(claim) for claim in cluster]
        for claim, (outcome, by) in zip(cluster, _rust.resolve_overlaps(views), strict=True):
            if outcome == "covered":
                ties.covered.add(claim.name)
            elif by is not None:
                kind = ties.overwritten if outcome == "overwritten" else ties.partly_overwritten
                kind[claim.name] = cluster[by].name
    _cover_meta(claims, ties)
    return ties


def _clusters(claims: list[Claim]) -> Iterable[list[Claim]]:
    """Yield groups of names whose address ranges touch, each in model order."""
    for cluster in find_spans(claim.tensor for claim in claims).find_touching():
        yield [claims[i] for i in cluster]


def _view(claim: Claim) -> tuple[int, tuple[int, ...], tuple[int, ...], int, bool]:
    tensor = claim.tensor
    layout = (tensor.shape, tensor.stride(), tensor.element_size())
    return (tensor.data_ptr(), *layout, claim.present)


def _cover_meta(claims: list[Claim], ties: Ties) -> None:
    """Meta tensors have no address: there a tie is the same tensor under two names."""
    same: dict[int, list[Claim]] = {}
    for claim in claims:
        if claim.tensor.is_meta:
            same.setdefault(id(claim.tensor), []).append(claim)
    for group in same.values():
        present = [claim.name for claim in group if claim.present]
        if len(group) == 1 or not present:
            continue
        ties.groups.append([claim.name for claim in group])
        ties.covered.update(claim.name for claim in group if not claim.present)
        ties.overwritten.update(dict.fromkeys(present[:-1], present[-1]))
