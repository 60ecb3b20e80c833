"""Which tensors of a model a load has written to, for the error that ends it half way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Most names of a kind that a note has in full.
_MOST_NAMES = 10


class Touched:
    """Names whose values may have changed, each with all of its new value or a part."""

    def __init__(self) -> None:
        self._whole: dict[str, bool] = {}

    def add(self, names: Iterable[str], *, whole: bool) -> None:
        """Take note of tensors that have their new values, or may have a part of them."""
        self._whole.update(dict.fromkeys(names, whole))

    def __contains__(self, name: str) -> bool:
        """Whether a tensor may have changed."""
        return name in self._whole

    def settle(self, names: Sequence[str], changed: Iterable[tuple[int, bool]]) -> None:
        """Take note that of these only some have changed: `(position, whole)` of each."""
        found = {names[position]: whole for position, whole in changed}
        for name in names:
            if name not in found:
                del self._whole[name]
        self._whole.update(found)

    def note(self) -> str:
        """Say in which state the model is."""
        whole = [name for name, is_whole in self._whole.items() if is_whole]
        partly = [name for name, is_whole in self._whole.items() if not is_whole]
        if not self._whole:
            return "The model has not been changed."
        sentences = ["The model is now partly loaded."]
        if whole:
            sentences.append(f"Tensors with their new values: {_list(whole)}.")
        if partly:
            sentences.append(f"Tensors that may have a part of theirs: {_list(partly)}.")
        sentences.append("All others are as they were, but for those that share memory with these.")
        return " ".join(sentences)


def _list(names: Iterable[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    more = len(quoted) - _MOST_NAMES
    return ", ".join(quoted[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
