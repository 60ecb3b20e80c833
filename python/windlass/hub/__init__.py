"""Models by id: files of the hub through its own library, cached, and models sent there.

The only place that imports huggingface_hub, and only when something is asked of the hub: the
functions for files take local folders as well, and need nothing for those.
"""

from __future__ import annotations

from windlass.hub.cards import create_and_tag_model_card
from windlass.hub.files import cached_file, commit_of, has_file, is_offline, list_files
from windlass.hub.push import PushToHubMixin
from windlass.hub.shards import cached_shards
from windlass.spellings import take_token

__all__ = [
    "PushToHubMixin",
    "cached_file",
    "cached_shards",
    "commit_of",
    "create_and_tag_model_card",
    "has_file",
    "is_offline",
    "list_files",
    "take_token",
]
