"""A save that is sent to the hub: the repository, and what has changed in the folder."""

from __future__ import annotations

import os
import warnings
from typing import Any

#: What `save_pretrained` takes for the hub, and how it calls what it does not need.
_OPTIONS = {
    "token",
    "repo_id",
    "commit_message",
    "commit_description",
    "private",
    "create_pr",
    "revision",
    "tags",
    "ignore_metadata_errors",
    "repo_url",
    "organization",
}
_WITHOUT_EFFECT = ("use_temp_dir", "temp_dir")


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return arguments for the hub, less those without effect, of which a warning tells.

    Raises:
        TypeError: an argument that nothing takes.
    """
    for name in options.keys() & _WITHOUT_EFFECT:
        message = f"save_pretrained: {name} has no effect: save_directory is what is sent"
        warnings.warn(message, UserWarning, stacklevel=3)
    kept = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    if unknown := sorted(kept.keys() - _OPTIONS):
        message = f"save_pretrained takes no argument {unknown[0]!r}"
        raise TypeError(message)
    return kept


class Sending:
    """Sends to the hub what a save changes in a folder."""

    def __init__(self, model: Any, folder: str, options: dict[str, Any]) -> None:  # noqa: ANN401
        self._model, self._folder, self._options = model, folder, dict(options)
        self._tags = self._options.pop("tags", None)
        self._tolerant = self._options.pop("ignore_metadata_errors", False)
        address = self._options.pop("repo_url", None)
        name = None if address else os.path.basename(os.path.normpath(folder))
        self._repo = model._create_repo(
            self._options.pop("repo_id", name),
            private=self._options.pop("private", None),
            token=self._options.get("token"),
            repo_url=address,
            organization=self._options.pop("organization", None),
        )
        self._before = model._get_files_timestamps(folder) if os.path.isdir(folder) else {}

    def send(self, model_tags: list[str] | None) -> None:
        """Send it, with a model card."""
        from windlass.hub.cards import CARD, create_and_tag_model_card

        tags = [self._tags] if isinstance(self._tags, str) else list(self._tags or ())
        tags = list(dict.fromkeys([*(model_tags or ()), *tags]))
        token = self._options.get("token")
        path = os.path.join(self._folder, CARD)
        create_and_tag_model_card(self._repo, tags, token, self._tolerant, path=path).save(path)
        self._model._upload_modified_files(self._folder, self._repo, self._before, **self._options)
