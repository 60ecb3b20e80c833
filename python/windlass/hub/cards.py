"""The README of a repository: made if there is none, its tags completed."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from windlass.errors import FileNotInRepository, NotCached
from windlass.hub.download import download
from windlass.hub.library import hub_library
from windlass.hub.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

CARD = "README.md"


def create_and_tag_model_card(
    repo_id: str,
    tags: Sequence[str] | str | None = None,
    token: bool | str | None = None,  # noqa: FBT001  (as in transformers)
    ignore_metadata_errors: bool = False,  # noqa: FBT001, FBT002
    *,
    path: str | None = None,
) -> Any:  # noqa: ANN401
    """Return the model card of a repository, or a new one, with these tags in it.

    Args:
        repo_id: id of the repository.
        tags: tags to add, where they are missing.
        token: as for `cached_file`.
        ignore_metadata_errors: whether to go on, with a warning, where the head of the card is
            damaged; what it says may then be lost.
        path: a card on this machine, which is taken before that of the repository.

    Returns:
        A `huggingface_hub.ModelCard`; `save(path)` writes it.

    Raises:
        HubError: one of its classes, as for `cached_file`.
        ValueError: the head of the card is damaged.
    """
    cards = hub_library()
    text = _read(path)
    if text is None:
        text = _read(_find(repo_id, token))
    if text is None:
        card = cards.ModelCard(_new_card(repo_id))
    else:
        card = cards.ModelCard(text, ignore_metadata_errors=ignore_metadata_errors)
    wanted = [tags] if isinstance(tags, str) else list(tags or ())
    present = card.data.tags or []
    if missing := [tag for tag in dict.fromkeys(wanted) if tag not in present]:
        card.data.tags = [*present, *missing]
    return card


def _find(repo_id: str, token: bool | str | None) -> str | None:  # noqa: FBT001
    try:
        return download(Request(repo_id, token=token, progress=False), CARD)
    except (FileNotInRepository, NotCached):
        return None


def _read(path: str | None) -> str | None:
    if path is None or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8-sig", newline="") as file:
        return file.read()


def _new_card(repo_id: str) -> str:
    name = repo_id.rpartition("/")[2]
    return f"---\nlibrary_name: windlass\ntags: []\n---\n\n# {name}\n\nSaved with windlass.\n"


def warn_of_ignored(options: dict[str, Any]) -> None:
    """Say of old arguments that filled a model card that nothing is made of them."""
    if options:
        names = ", ".join(sorted(options))
        message = f"arguments for a model card are deprecated and do nothing: {names}"
        warnings.warn(message, FutureWarning, stacklevel=3)
