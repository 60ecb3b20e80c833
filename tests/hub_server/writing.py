"""What a writer asks of the hub: repositories, branches, large files, commits."""

from __future__ import annotations

import base64
import hashlib
import json
from math import ceil
from typing import TYPE_CHECKING, Any

from hub_server.answers import Answer, Refused, in_json
from hub_server.store import Repository, StoredFile, stored

if TYPE_CHECKING:
    from hub_server.server import HubServer
    from hub_server.store import Account


def create(hub: HubServer, account: Account, body: bytes) -> Answer:
    wanted = json.loads(body)
    organization = wanted.get("organization") or account.name
    name = f"{organization}/{wanted['name']}"
    url = {"url": f"{hub.url}/{name}"}
    if name in hub.repositories:
        return in_json(url | {"error": "You already created this model repo"}, status=409)
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    repository = hub.repositories[name] = Repository(name, private=private)
    repository.commit({".gitattributes": stored(".gitattributes", b"*.safetensors lfs\n")})
    return in_json(url)


def branch(repository: Repository, name: str) -> Answer:
    if name in repository.refs:
        raise Refused(409, message="Reference already exists")
    repository.refs[name] = repository.refs["main"]
    return in_json({})


def preupload(repository: Repository, revision: str, body: bytes) -> Answer:
    there = _files(repository, revision)

    def plan(file: dict[str, Any]) -> dict[str, Any]:
        name, old = file["path"], there.get(file["path"])
        mode = "lfs" if stored(name, b"").is_lfs else "regular"
        oid = old.etag if old else None
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    return in_json({"files": [plan(file) for file in json.loads(body)["files"]]})


def lfs_batch(hub: HubServer, body: bytes) -> Answer:
    objects = [_upload_plan(hub, wanted) for wanted in json.loads(body)["objects"]]
    return in_json({"transfer": "basic", "objects": objects})


def _upload_plan(hub: HubServer, wanted: dict[str, Any]) -> dict[str, Any]:
    oid, size = wanted["oid"], wanted["size"]
    if oid in hub.large:
        return {"oid": oid, "size": size}
    upload: dict[str, Any] = {"href": f"{hub.url}/lfs/{oid}"}
    if size > hub.part_bytes:
        parts = range(1, ceil(size / hub.part_bytes) + 1)
        upload["header"] = {str(part): f"{hub.url}/lfs/{oid}/{part}" for part in parts}
        upload["header"]["chunk_size"] = str(hub.part_bytes)
    verify = {"href": f"{hub.url}/lfs/{oid}/verify"}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def lfs_put(hub: HubServer, oid: str, part: str, body: bytes) -> Answer:
    if part:
        hub.parts[oid, int(part)] = body
    else:
        _keep(hub, oid, body)
    return Answer(200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})


def lfs_complete(hub: HubServer, oid: str, body: bytes) -> Answer:
    parts = [part["partNumber"] for part in json.loads(body)["parts"]]
    _keep(hub, oid, b"".join(hub.parts.pop((oid, part)) for part in sorted(parts)))
    return in_json({})


def lfs_verify(hub: HubServer, oid: str, body: bytes) -> Answer:
    if len(hub.large.get(oid, b"")) != json.loads(body)["size"]:
        raise Refused(404, message="the object is not there")
    return in_json({})


def _keep(hub: HubServer, oid: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refused(400, message="the bytes are not those of the hash")
    hub.large[oid] = data


def commit(
    hub: HubServer, repository: Repository, revision: str, body: bytes, *, as_request: bool
) -> Answer:
    lines = [json.loads(line) for line in body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    files = dict(_files(repository, revision))
    for line in lines:
        _apply(hub, files, line["key"], line["value"])
    number = sum(ref.startswith("refs/pr/") for ref in repository.refs) + 1
    ref = f"refs/pr/{number}" if as_request else revision
    made = repository.commit(
        files, ref=ref, summary=header["summary"], description=header["description"]
    )
    page = f"{hub.url}/{repository.id}"
    answer = {"commitUrl": f"{page}/commit/{made.sha}", "commitOid": made.sha}
    if as_request:
        answer["pullRequestUrl"] = f"{page}/discussions/{number}"
    return in_json(answer)


def _apply(hub: HubServer, files: dict[str, StoredFile], key: str, value: Any) -> None:
    if key == "file":
        files[value["path"]] = StoredFile(base64.b64decode(value["content"]), is_lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in hub.large:
            raise Refused(400, message="an LFS object is missing")
        files[value["path"]] = StoredFile(hub.large[value["oid"]], is_lfs=True)
    elif key == "deletedFile" and files.pop(value["path"], None) is None:
        raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")


def _files(repository: Repository, revision: str) -> dict[str, StoredFile]:
    found = repository.resolve(revision)
    if found is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return found.files
