"""Names of a checkpoint against names of a model: prefixes, old spellings, patterns. Pure.

A checkpoint of a base model loads into a model with a head, and the other way round: names then
differ by the prefix of the base model. Names are reported as the checkpoint would spell them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from windlass.errors import MixedNames

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

#: Last part of a name → how it was spelled, by TensorFlow's layer norms and torch's weight norms.
_SPELLINGS = {
    "weight": ("gamma",),
    "bias": ("beta",),
    "parametrizations.weight.original0": ("weight_g",),
    "parametrizations.weight.original1": ("weight_v",),
    "weight_g": ("parametrizations.weight.original0",),
    "weight_v": ("parametrizations.weight.original1",),
}


class Prefix(NamedTuple):
    """What the names of a checkpoint have before them, or lack.

    Attributes:
        text: the prefix, with its dot.
        change: what becomes of a model's name to be the checkpoint's.
    """

    text: str
    change: Literal["none", "add", "remove"]

    def to_checkpoint(self, name: str) -> str:
        """Return the name that the checkpoint should have for one of the model."""
        if self.change == "add":
            return self.text + name
        return name.removeprefix(self.text) if self.change == "remove" else name

    def reaches(self, name: str) -> bool:
        """Whether the checkpoint can have a name of the model: one of a base model has no head."""
        return self.change != "remove" or name.startswith(self.text)


class MatchedNames(NamedTuple):
    """Which name of the checkpoint belongs to which of the model.

    Attributes:
        stored: name of the model → name in the checkpoint, in model order.
        absent: name of the model that the checkpoint lacks → how it would spell it.
        unexpected: names of the checkpoint that are none of the model's, sorted.
        prefix: the difference between the two.
    """

    stored: dict[str, str]
    absent: dict[str, str]
    unexpected: list[str]
    prefix: Prefix


def match_keys(
    expected: Sequence[str],
    loaded: Collection[str],
    *,
    base_model_prefix: str,
    transient: Iterable[str] = (),
) -> MatchedNames:
    """Pair the names of a model with those of a checkpoint.

    Args:
        expected: names of the model's state dict.
        loaded: names in the checkpoint.
        base_model_prefix: attribute under which models with a head hold the base model, or `""`.
        transient: buffers that are not saved; older versions may have saved them.

    Raises:
        MixedNames: a checkpoint without the prefix has names of the head.

    Example:
        >>> match = match_keys(["bert.a", "head"], ["a", "b"], base_model_prefix="bert")
        >>> match.stored, match.absent, match.unexpected
        ({'bert.a': 'a'}, {'head': 'head'}, ['b'])
    """
    prefix = find_prefix(expected, loaded, base_model_prefix)
    own = {prefix.to_checkpoint(name) for name in expected if prefix.reaches(name)}
    stored: dict[str, str] = {}
    absent: dict[str, str] = {}
    for name in expected:
        wanted = prefix.to_checkpoint(name)
        found = _find_spelling(wanted, loaded, own) if prefix.reaches(name) else None
        if found is None:
            absent[name] = wanted
        else:
            stored[name] = found
    known = {*stored.values(), *map(prefix.to_checkpoint, transient)}
    unexpected = sorted(set(loaded) - known)
    if prefix.change == "remove":
        _refuse_head(unexpected, absent, prefix.text)
    return MatchedNames(stored, absent, unexpected, prefix)


def find_prefix(expected: Iterable[str], loaded: Iterable[str], base_model_prefix: str) -> Prefix:
    """Find out which side has the prefix of the base model before its names."""
    text = f"{base_model_prefix}."
    if not base_model_prefix:
        return Prefix(text, "none")
    is_stored = any(name.startswith(text) for name in loaded)
    is_expected = any(name.startswith(text) for name in expected)
    if is_stored == is_expected:
        return Prefix(text, "none")
    return Prefix(text, "add" if is_stored else "remove")


def without_ignored(names: Iterable[str], patterns: Iterable[str] | None) -> list[str]:
    """Return the names in which no pattern is found."""
    searches = [re.compile(pattern).search for pattern in patterns or ()]
    return [name for name in names if not any(search(name) for search in searches)]


def _find_spelling(wanted: str, loaded: Collection[str], own: Collection[str]) -> str | None:
    """Return the checkpoint's name for one: itself, or an old spelling of its last part.

    A name in `own` is no spelling of another one: the model has a place for it as it is.
    """
    if wanted in loaded:
        return wanted
    for ending, spellings in _SPELLINGS.items():
        stem = wanted.removesuffix(ending)
        if stem != wanted and (not stem or stem.endswith(".")):
            for spelling in spellings:
                if (old := stem + spelling) in loaded and old not in own:
                    return old
    return None


def _refuse_head(unexpected: Collection[str], absent: dict[str, str], prefix: str) -> None:
    heads = sorted(set(unexpected) & {name for name in absent if not name.startswith(prefix)})
    if heads:
        message = (
            f"the checkpoint has {heads}, which belong to the head of the model, beside names of "
            f"the base model without `{prefix}`: it mixes the names of two models. Save it again "
            "from the model that it belongs to"
        )
        raise MixedNames(message)
