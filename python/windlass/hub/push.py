"""`PushToHubMixin`: what has a `save_pretrained` goes to a repository of the hub."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from windlass.errors import AccessDenied, HubError
from windlass.hub.cards import CARD, create_and_tag_model_card, warn_of_ignored
from windlass.hub.library import hub_api, hub_library
from windlass.hub.refusals import translated
from windlass.hub.request import Request
from windlass.hub.stale import find_stale
from windlass.spellings import take_renamed, take_token, warn_of_old

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from windlass.types import PathLike

_log = logging.getLogger(__name__)

_KINDS = {
    "Model": "model",
    "Config": "config",
    "Tokenizer": "tokenizer",
    "FeatureExtractor": "feature extractor",
    "Processor": "processor",
}
_LOCAL_ONLY = (".windlass.lock", ".git", ".cache")
_BRANCH_EXISTS = 409


class PushToHubMixin:
    """Gives `push_to_hub` to a class that has `save_pretrained(folder, **options)`."""

    def push_to_hub(  # noqa: PLR0917  (the signature of transformers)
        self,
        repo_id: str | None = None,
        use_temp_dir: bool | None = None,  # noqa: FBT001
        commit_message: str | None = None,
        private: bool | None = None,  # noqa: FBT001
        token: bool | str | None = None,  # noqa: FBT001
        max_shard_size: int | str | None = "5GB",
        create_pr: bool = False,  # noqa: FBT001, FBT002
        safe_serialization: bool = True,  # noqa: FBT001, FBT002
        revision: str | None = None,
        commit_description: str | None = None,
        tags: Sequence[str] | str | None = None,
        **deprecated: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Save, and send what was saved to a repository, which is made if it does not exist.

        One commit has all of it: a reader finds the old checkpoint or the new one. Files of the
        former checkpoint that the new one replaces by others (a single file by shards, five shards
        by three) are removed in the same commit.

        Args:
            repo_id: name of the repository, with the organisation before it if it is not to be
                yours. A folder of that name is saved to, and gives the repository its name.
            use_temp_dir: whether to save to a temporary folder. By default only if there is no
                folder of the name of the repository in the working folder.
            commit_message: message of the commit; by default `Upload model`, or what it is.
            private: whether a new repository is private; by default as the organisation has it.
            token: a token; `True` for that of the login; `None` for that of the login if there
                is one.
            max_shard_size: largest shard, as `"5GB"` or in bytes.
            create_pr: whether to open a pull request instead of changing the branch.
            safe_serialization: whether to save safetensors, not pickles.
            revision: branch to send to, which is made if it does not exist.
            commit_description: what the commit says below its message.
            tags: tags for the model card.
            **deprecated: old names. `use_auth_token` is `token`; `repo_path_or_name` is `repo_id`;
                `repo_url` is the address of a repository, in place of `repo_id`; `organization` is
                put before `repo_id`; `ignore_metadata_errors` goes on with a damaged model card;
                arguments for a model card do nothing.

        Returns:
            huggingface_hub's `CommitInfo`, a `str` with the address of the commit.

        Raises:
            HubError: one of its classes, as for `windlass.hub.cached_file`.
            ValueError: arguments that contradict each other, or no repository named.
        """
        token = take_token(token, deprecated.pop("use_auth_token", None))
        place = {name: deprecated.pop(name, None) for name in ("repo_url", "organization")}
        ignore_metadata_errors = deprecated.pop("ignore_metadata_errors", False)
        old_name = deprecated.pop("repo_path_or_name", None)
        repo_id = take_renamed(repo_id, old_name, "repo_id", "repo_path_or_name")
        warn_of_ignored(deprecated)
        folder, name = _folder_and_name(repo_id)
        self._check_saving(max_shard_size=max_shard_size, safe_serialization=safe_serialization)
        repo_id = self._create_repo(name, private=private, token=token, **place)
        folder = folder or repo_id.rpartition("/")[2]
        if use_temp_dir is None:
            use_temp_dir = not os.path.isdir(folder)
        with _temporary_or(folder, use_temp_dir=use_temp_dir) as work:
            before = self._get_files_timestamps(work)
            self.save_pretrained(
                work, max_shard_size=max_shard_size, safe_serialization=safe_serialization
            )
            path = os.path.join(work, CARD)
            card = create_and_tag_model_card(
                repo_id, tags, token, ignore_metadata_errors, path=path if before else None
            )
            card.save(path)
            return self._upload_modified_files(
                work,
                repo_id,
                before,
                commit_message=commit_message,
                token=token,
                create_pr=create_pr,
                revision=revision,
                commit_description=commit_description,
            )

    def save_pretrained(self, save_directory: PathLike, **options: Any) -> Any:  # noqa: ANN401
        """Save to a folder; each class has its own."""
        message = f"{type(self).__name__} has no save_pretrained, which push_to_hub needs"
        raise NotImplementedError(message)

    def _check_saving(self, **options: Any) -> None:  # noqa: ANN401
        """Raise what `save_pretrained` would, before a repository is made; classes may know."""

    def _create_repo(
        self,
        repo_id: str | None,
        private: bool | None = None,  # noqa: FBT001
        token: bool | str | None = None,  # noqa: FBT001
        repo_url: str | None = None,
        organization: str | None = None,
    ) -> str:
        """Make a repository if it does not exist, and return its whole id."""
        if repo_url is not None:
            warn_of_old("repo_url", "repo_id")
            if repo_id is not None:
                message = "repo_id and its old form repo_url are both given; give repo_id alone"
                raise ValueError(message)
            repo_id = _id_of_address(repo_url)
        if repo_id is None:
            message = "push_to_hub needs repo_id: the name of a repository"
            raise ValueError(message)
        if organization is not None:
            warn_of_old("organization", "repo_id='organisation/name'")
            repo_id = f"{organization}/{repo_id.rpartition('/')[2]}"
        with translated(Request(repo_id)):
            made = hub_api().create_repo(repo_id, private=private, token=token, exist_ok=True)
        whole: str = made.repo_id
        return whole

    def _get_files_timestamps(self, working_dir: PathLike) -> dict[str, float]:
        """Return when each file and folder of a folder was last changed, in seconds."""
        return {
            name: os.path.getmtime(os.path.join(working_dir, name))
            for name in os.listdir(working_dir)
        }

    def _upload_modified_files(  # noqa: PLR0917  (the signature of transformers)
        self,
        working_dir: PathLike,
        repo_id: str,
        files_timestamps: Mapping[str, float],
        commit_message: str | None = None,
        token: bool | str | None = None,  # noqa: FBT001
        create_pr: bool = False,  # noqa: FBT001, FBT002
        revision: str | None = None,
        commit_description: str | None = None,
    ) -> Any:  # noqa: ANN401
        """Send what has changed in a folder since its timestamps were taken, in one commit.

        Returns:
            huggingface_hub's `CommitInfo`.

        Raises:
            HubError: one of its classes.
        """
        folder = os.fspath(working_dir)
        now = self._get_files_timestamps(folder)
        changed = [name for name in sorted(now) if now[name] != files_timestamps.get(name)]
        files = [file for name in changed for file in _files_below(folder, name)]
        request = Request(repo_id, revision=revision, token=token)
        _log.info("sending to %s: %s", repo_id, ", ".join(files))
        with translated(request):
            if revision is not None and not revision.startswith("refs/pr"):
                _make_branch(request, may_be_forbidden=create_pr)
            stale = find_stale(_files_there(request), now) if files else []
            return _commit(
                request,
                {file: os.path.join(folder, *file.split("/")) for file in files},
                stale,
                commit_message=commit_message or _default_message(type(self).__name__),
                commit_description=commit_description,
                create_pr=create_pr,
            )


def _folder_and_name(repo_id: str | None) -> tuple[str | None, str | None]:
    """Tell a folder from the name of a repository: the folder's own name is then the name."""
    if repo_id is None or not os.path.isdir(repo_id):
        return None, repo_id
    return repo_id, os.path.basename(os.path.abspath(repo_id))


def _id_of_address(repo_url: str) -> str:
    endpoint = hub_library("huggingface_hub.constants").ENDPOINT
    return repo_url.removeprefix(endpoint).removeprefix("https://huggingface.co").strip("/")


@contextmanager
def _temporary_or(folder: str, *, use_temp_dir: bool) -> Iterator[str]:
    if use_temp_dir:
        with tempfile.TemporaryDirectory(prefix="windlass-push-") as made:
            yield made
    else:
        os.makedirs(folder, exist_ok=True)
        yield folder


def _default_message(class_name: str) -> str:
    kinds = (kind for part, kind in _KINDS.items() if part in class_name)
    return f"Upload {next(kinds, class_name)}"


def _files_below(folder: str, name: str) -> list[str]:
    """Return a file, or the files of a folder, by their names in the repository."""
    path = os.path.join(folder, name)
    if name in _LOCAL_ONLY or ".windlass-" in name:
        return []
    if os.path.isfile(path):
        return [name]
    found = (
        os.path.relpath(os.path.join(at, file), folder)
        for at, _, files in os.walk(path)
        for file in files
    )
    return sorted(file.replace(os.sep, "/") for file in found)


def _make_branch(request: Request, *, may_be_forbidden: bool) -> None:
    """Make a branch; who opens a pull request may lack the right, and it may exist."""
    try:
        with translated(request):
            hub_api().create_branch(
                request.source, branch=request.revision, token=request.token, exist_ok=True
            )
    except AccessDenied:
        if not may_be_forbidden:
            raise


def _files_there(request: Request) -> list[str]:
    """Return the files of a repository; none if it cannot be looked at."""
    try:
        with translated(request):
            files: list[str] = hub_api().list_repo_files(
                request.source, revision=request.revision, token=request.token
            )
    except HubError as error:
        _log.warning("old files of %s cannot be found, and stay: %s", request.source, error)
        return []
    return files


def _commit(
    request: Request,
    files: Mapping[str, str],
    stale: Sequence[str],
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    library = hub_library()
    operations = [
        *(library.CommitOperationAdd(name, path) for name, path in files.items()),
        *(library.CommitOperationDelete(name, is_folder=False) for name in stale),
    ]
    return hub_api().create_commit(
        request.source,
        operations=operations,
        revision=request.revision,
        token=request.token,
        **options,
    )
