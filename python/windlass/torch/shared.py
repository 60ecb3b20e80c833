"""Names that share memory, at save: which of them is stored, and what is said about the rest."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from windlass.errors import SharedTensors
from windlass.torch.aliases import find_aliases

if TYPE_CHECKING:
    import torch

    from windlass.torch.aliases import AliasGroup

logger = logging.getLogger(__name__)

#: Which of several identical names is stored: a rule by name, or the names to prefer.
Keep: TypeAlias = Literal["hub", "transformers", "first"] | Collection[str]

#: What becomes of names that share memory without being identical.
OnOverlap: TypeAlias = Literal["store", "error"]


class Deduplicated(NamedTuple):
    """A state dict in which no tensor stands twice.

    Attributes:
        tensors: what is stored, in the order of the dict.
        dropped: name that is not stored → the identical one that is.
    """

    tensors: dict[str, torch.Tensor]
    dropped: dict[str, str]


def deduplicate(
    tensors: dict[str, torch.Tensor], *, keep: Keep, discard: Iterable[str], on_overlap: OnOverlap
) -> Deduplicated:
    """Drop all but one of each set of identical names.

    Args:
        tensors: plain tensors by name.
        keep: which one is stored. `"hub"` (and safetensors): the alphabetically first that is not
            in `discard`. `"transformers"`: the one that matches no pattern in `discard`; if all
            match, the alphabetically last. `"first"` (accelerate): the first of the dict. A
            collection of names: the first of them that is in the set, else as `"hub"`; names in a
            `set` are in the order of the dict.
        discard: names, for `"transformers"` patterns as in `_tied_weights_keys`.
        on_overlap: `"store"`: names that share memory otherwise are each stored in full, and the
            log says what it costs. `"error"`: they are refused.

    Raises:
        SharedTensors: `on_overlap="error"`, or `"transformers"` and not exactly one of identical
            names is undeclared.
    """
    if isinstance(keep, (set, frozenset)):  # Their own order is another in every process.
        keep = [name for name in tensors if name in keep]
    choose = _chooser(keep, list(discard))
    dropped: dict[str, str] = {}
    for group in find_aliases(tensors):
        views = _identical(group, tensors)
        if len(views) > 1:
            _tell_overlap(group, [tensors[names[0]] for names in views], on_overlap)
        for names in views:
            if len(names) > 1:
                kept = choose(names)
                dropped.update((name, kept) for name in names if name != kept)
    stored = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    return Deduplicated(stored, dropped)


def refuse_shared(tensors: dict[str, torch.Tensor]) -> None:
    """Raise for names that share memory in any way.

    Raises:
        SharedTensors: names all of them.
    """
    groups = find_aliases(tensors)
    if groups:
        shown = ", ".join(f"{group.names} ({group.relation})" for group in groups)
        message = (
            f"Some tensors share memory, which would store them several times and load them "
            f'untied: {shown}. Use save_model, or on_overlap="store" to store each in full.'
        )
        raise SharedTensors(message)


def _identical(group: AliasGroup, tensors: dict[str, torch.Tensor]) -> list[list[str]]:
    """Sort the names of a group into sets of identical views, in order of first appearance."""
    views: dict[object, list[str]] = {}
    for name in group.names:
        tensor = tensors[name]
        layout = (tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
        views.setdefault((tensor.data_ptr(), *layout), []).append(name)
    return list(views.values())


def _chooser(keep: Keep, discard: list[str]) -> Callable[[list[str]], str]:
    """Return what picks the one of several identical names that is stored."""
    if keep == "first":
        return lambda names: names[0]
    if keep == "transformers":
        return partial(_choose_undeclared, patterns=[re.compile(pattern) for pattern in discard])
    unwanted = set(discard)
    ranks = {} if keep == "hub" else {name: rank for rank, name in enumerate(keep)}

    def choose(names: list[str]) -> str:
        preferred = [name for name in names if name in ranks]
        if preferred:
            return min(preferred, key=ranks.__getitem__)
        return min(set(names) - unwanted or names)

    return choose


def _choose_undeclared(names: list[str], patterns: list[re.Pattern[str]]) -> str:
    undeclared = [name for name in names if not any(one.search(name) for one in patterns)]
    if not undeclared:
        return max(names)
    if len(undeclared) > 1:
        message = (
            f"{undeclared} are one tensor, and none of `shared_tensors_to_discard` "
            f"({[one.pattern for one in patterns]}) says which of them may go"
        )
        raise SharedTensors(message)
    return undeclared[0]


def _tell_overlap(group: AliasGroup, views: list[torch.Tensor], on_overlap: OnOverlap) -> None:
    if on_overlap == "error":
        message = f'{group.names} share memory ({group.relation}), and on_overlap="error"'
        raise SharedTensors(message)
    stored = sum(view.nbytes for view in views)
    logger.warning(
        "%s share memory (%s): each is stored in full, %d bytes in all, and they load untied",
        group.names,
        group.relation,
        stored,
    )


def check_keep(keep: Keep, on_overlap: OnOverlap) -> None:
    """Raise for values that no save takes.

    Raises:
        ValueError: an unknown rule.
        TypeError: `keep` is neither a rule nor names.
    """
    if isinstance(keep, str):
        if keep not in ("hub", "transformers", "first"):
            message = f'keep should be "hub", "transformers", "first" or names, found {keep!r}'
            raise ValueError(message)
    elif not isinstance(keep, Collection):
        message = f"keep should be a rule or names, found {type(keep).__name__}"
        raise TypeError(message)
    if on_overlap not in ("store", "error"):
        message = f'on_overlap should be "store" or "error", found {on_overlap!r}'
        raise ValueError(message)
