"""What the hub holds: repositories with commits, branches and files; accounts with tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

LFS_ENDINGS = (".safetensors", ".bin")


class StoredFile(NamedTuple):
    data: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_sha1(self) -> str:
        content = self.pointer if self.is_lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {len(self.data)}\n"
        ).encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_sha1


class Commit(NamedTuple):
    sha: str
    files: dict[str, StoredFile]
    summary: str
    description: str


@dataclass
class Repository:
    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))

    def commit(
        self,
        files: dict[str, StoredFile],
        *,
        ref: str = "main",
        summary: str = "",
        description: str = "",
    ) -> Commit:
        text = f"{self.id} {len(self.commits)} {summary} {sorted(files)}"
        sha = hashlib.sha1(text.encode()).hexdigest()
        made = Commit(sha, files, summary, description)
        self.commits[sha] = made
        self.refs[ref] = sha
        return made

    @property
    def head(self) -> Commit:
        return self.commits[self.refs["main"]]

    @property
    def names(self) -> list[str]:
        return sorted(self.head.files)


class Account(NamedTuple):
    name: str
    may_write: bool = True


def stored(name: str, data: bytes) -> StoredFile:
    return StoredFile(data, is_lfs=name.endswith(LFS_ENDINGS))
