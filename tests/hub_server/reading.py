"""What a reader asks of the hub: files, and what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hub_server.answers import Answer, Refused, in_json, ranged

if TYPE_CHECKING:
    from hub_server.store import Commit, Repository, StoredFile


def find_commit(repository: Repository, revision: str) -> Commit:
    commit = repository.resolve(revision)
    if commit is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def resolve(commit: Commit, name: str, cdn: str, wanted: str | None) -> Answer:
    """Give a small file, or say where a large one is: at another host, as in the real hub."""
    told = {"X-Repo-Commit": commit.sha}
    file = commit.files.get(name)
    if file is None:
        answer = Refused(404, "EntryNotFound", "Entry not found").answer()
        return answer._replace(headers=answer.headers | told)
    told["ETag"] = f'"{file.etag}"'
    if not file.is_lfs:
        answer = ranged(file.data, wanted)
        return answer._replace(headers=answer.headers | told)
    told |= {
        "X-Linked-Etag": f'"{file.etag}"',
        "X-Linked-Size": str(len(file.data)),
        "Location": f"{cdn}/{file.etag}/{name}",
    }
    return Answer(302, told)


def info(repository: Repository, commit: Commit) -> Answer:
    siblings = [{"rfilename": name} for name in sorted(commit.files)]
    return in_json(
        {
            "id": repository.id,
            "sha": commit.sha,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "tags": [],
            "siblings": siblings,
        }
    )


def tree(commit: Commit) -> Answer:
    return in_json([_entry(name, file) for name, file in sorted(commit.files.items())])


def paths_info(commit: Commit, body: bytes) -> Answer:
    names = parse_qs(body.decode())["paths"]
    return in_json([_entry(name, commit.files[name]) for name in names if name in commit.files])


def _entry(name: str, file: StoredFile) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(file.data), "oid": file.git_sha1}
    if file.is_lfs:
        pointer = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
        entry["lfs"] = pointer
    return entry
