"""The hub itself: two listeners (the hub and its store of large files), routes and rights."""

from __future__ import annotations

import re
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from hub_server import reading, writing
from hub_server.answers import Answer, Refused, in_json, ranged
from hub_server.faults import Fault, Faults
from hub_server.handler import Handler
from hub_server.store import Account, Repository, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from hub_server.store import Commit


class Seen(NamedTuple):
    method: str
    path: str
    token: str | None
    range: str | None
    agent: str


class Asked(NamedTuple):
    method: str
    path: str
    query: str
    token: str | None
    range: str | None
    body: bytes


_REPO = r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)"
_ROUTES = {
    re.compile(pattern.replace("REPO", _REPO)): name
    for pattern, name in {
        r"/api/repos/create": "create",
        r"/api/validate-yaml": "validate",
        r"/api/whoami-v2": "whoami",
        r"/api/models/REPO/revision/(?P<rev>.+)": "info",
        r"/api/models/REPO/tree/(?P<rev>.+)": "tree",
        r"/api/models/REPO/paths-info/(?P<rev>.+)": "paths_info",
        r"/api/models/REPO/preupload/(?P<rev>.+)": "preupload",
        r"/api/models/REPO/commit/(?P<rev>.+)": "commit",
        r"/api/models/REPO/branch/(?P<rev>.+)": "branch",
        r"/api/models/REPO": "info",
        r"/REPO\.git/info/lfs/objects/batch": "lfs_batch",
        r"/lfs/(?P<oid>\w{64})(?:/(?P<part>\w+))?": "lfs",
        r"/REPO/resolve/(?P<rev>[^/]+)/(?P<name>.+)": "resolve",
    }.items()
}
_WRITES = {"create", "preupload", "commit", "branch", "lfs_batch"}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """A hub with nothing in it; `url` is its `HF_ENDPOINT`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.accounts: dict[str, Account] = {}
        self.large: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_bytes = 1 << 40
        self.seen: list[Seen] = []
        self.faults = Faults()

    def __enter__(self) -> Self:
        self._servers = [self._listen(self.answer), self._listen(self.answer_cdn)]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _listen(self, answer: Any) -> ThreadingHTTPServer:
        server = _Listener(("127.0.0.1", 0), Handler)
        server.hub, server.answer = self, answer  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def add(self, repo: str, files: dict[str, bytes], **options: Any) -> Repository:
        """Add a repository with one commit."""
        repository = self.repositories[repo] = Repository(repo, **options)
        repository.commit({name: stored(name, data) for name, data in files.items()})
        return repository

    def fail(self, path: str, **what: Any) -> None:
        """Let requests of a path go wrong; see `Fault`."""
        self.faults.add(Fault(path, **what))

    def gets(self, part: str, method: str = "GET") -> list[Seen]:
        """Return the requests seen whose address contains `part`."""
        return [seen for seen in self.seen if seen.method == method and part in seen.path]

    def answer(self, asked: Asked) -> Answer:
        for pattern, name in _ROUTES.items():
            if found := pattern.fullmatch(asked.path):
                parts = found.groupdict(default="").items()
                return self._route(name, {key: unquote(part) for key, part in parts}, asked)
        raise Refused(404, message=f"no such page: {asked.path}")

    def answer_cdn(self, asked: Asked) -> Answer:
        """Give a large file by its hash, as a store that knows no accounts."""
        if asked.token:
            raise Refused(400, message="a token was sent to the store of large files")
        oid = asked.path.split("/")[1]
        for repository in self.repositories.values():
            for commit in repository.commits.values():
                for file in commit.files.values():
                    if file.is_lfs and file.sha256 == oid:
                        return ranged(file.data, asked.range)
        raise Refused(404)

    def _route(self, name: str, found: dict[str, str], asked: Asked) -> Answer:
        account = self._account(asked.token)
        if name in _WRITES and (account is None or not account.may_write):
            raise Refused(403 if account else 401, message="You need a token with write access")
        if name == "create":
            return writing.create(self, account, asked.body)
        if name == "validate":
            return in_json({"errors": [], "warnings": []})
        if name == "whoami":
            return in_json({"name": account.name}) if account else Refused(401).answer()
        if name == "lfs":
            return self._lfs(found["oid"], found["part"], asked)
        repository = self._repository(found["repo"], account)
        if name == "lfs_batch":
            return writing.lfs_batch(self, asked.body)
        return self._of_revision(name, repository, found.get("rev") or "main", found, asked)

    def _of_revision(
        self,
        name: str,
        repository: Repository,
        revision: str,
        found: dict[str, str],
        asked: Asked,
    ) -> Answer:
        as_request = "create_pr=1" in asked.query
        answers: dict[str, Callable[[], Answer]] = {
            "branch": lambda: writing.branch(repository, revision),
            "preupload": lambda: writing.preupload(repository, revision, asked.body),
            "commit": lambda: writing.commit(
                self, repository, revision, asked.body, as_request=as_request
            ),
            "info": lambda: reading.info(repository, commit()),
            "tree": lambda: reading.tree(commit()),
            "paths_info": lambda: reading.paths_info(commit(), asked.body),
            "resolve": lambda: reading.resolve(commit(), found["name"], self.cdn, asked.range),
        }

        def commit() -> Commit:
            return reading.find_commit(repository, revision)

        return answers[name]()

    def _lfs(self, oid: str, part: str, asked: Asked) -> Answer:
        if asked.method == "PUT":
            return writing.lfs_put(self, oid, part, asked.body)
        if part == "verify":
            return writing.lfs_verify(self, oid, asked.body)
        return writing.lfs_complete(self, oid, asked.body)

    def _account(self, token: str | None) -> Account | None:
        if token is None:
            return None
        if token not in self.accounts:
            raise Refused(401, message="Invalid credentials in Authorization header")
        return self.accounts[token]

    def _repository(self, name: str, account: Account | None) -> Repository:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and account is None):
            raise Refused(404 if account else 401, "RepoNotFound", "Repository not found")
        if repository.gated and account is None:
            raise Refused(401, "GatedRepo", "Access to this model is restricted")
        return repository
