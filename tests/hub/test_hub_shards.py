"""All shards of an index: found in a folder, or fetched at once from one commit."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hub_server.store import stored
from windlass import errors
from windlass.hub import cached_file, cached_shards, commit_of

if TYPE_CHECKING:
    from hub_server import HubServer
    from hub_server.answers import Answer
    from hub_server.server import Asked
    from hub_server.store import Repository

INDEX = "model.safetensors.index.json"
COUNT = 5
SHARDS = {
    f"model-{n:05d}-of-{COUNT:05d}.safetensors": bytes([n]) * (300_000 + n)
    for n in range(1, COUNT + 1)
}
NAMES = list(SHARDS)


def _index(names: list[str]) -> bytes:
    weight_map = {f"weight.{number}": name for number, name in enumerate(names)}
    return json.dumps({"metadata": {}, "weight_map": weight_map}).encode()


FILES = SHARDS | {INDEX: _index(NAMES[::-1] + NAMES)}


@pytest.fixture
def repo(hub: HubServer) -> Repository:
    return hub.add("maker/sharded", FILES)


def _blobs(repo: Repository) -> dict[str, str]:
    return {name: file.etag for name, file in repo.head.files.items()}


def test_every_shard_is_fetched_once_in_order_of_names(hub: HubServer, repo: Repository) -> None:
    index = cached_file(repo.id, INDEX)
    paths = cached_shards(repo.id, index)
    assert [Path(path).name for path in paths] == NAMES
    assert [Path(path).read_bytes() for path in paths] == list(SHARDS.values())
    assert all(len(hub.gets(_blobs(repo)[name])) == 1 for name in NAMES)
    assert {Path(path).parent for path in paths} == {Path(index).parent}


def test_index_may_be_given_by_its_name(repo: Repository) -> None:
    assert len(cached_shards(repo.id, INDEX)) == COUNT


def test_shards_are_fetched_several_at_a_time(
    hub: HubServer, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(COUNT)  # Lets go when five requests are there at once.
    answer = hub.answer_cdn

    def met(asked: Asked) -> Answer:
        together.wait(timeout=20)
        return answer(asked)

    monkeypatch.setattr(hub._servers[1], "answer", met)
    assert len(cached_shards(repo.id, INDEX)) == COUNT


def test_progress_is_one_count_of_what_is_missing(hub: HubServer, repo: Repository) -> None:
    cached_file(repo.id, NAMES[0])
    hub.fail(NAMES[1], method="GET", cut_after=1000, times=1)
    told: list[tuple[int, int]] = []
    cached_shards(repo.id, INDEX, progress=lambda done, total: told.append((done, total)))
    told = [(done, total) for done, total in told if total > len(FILES[INDEX])]
    missing = sum(len(SHARDS[name]) for name in NAMES[1:])
    assert {total for _, total in told} == {missing}
    assert max(told) == (missing, missing)


def test_all_shards_are_of_the_commit_of_the_index(repo: Repository) -> None:
    index = cached_file(repo.id, INDEX)
    others = {name: stored(name, b"other") for name in NAMES}
    repo.commit(others | {INDEX: stored(INDEX, FILES[INDEX])}, summary="later")
    paths = cached_shards(repo.id, index)
    assert [Path(path).read_bytes() for path in paths] == list(SHARDS.values())
    assert {commit_of(path) for path in paths} == {commit_of(index)}


def test_cached_shards_are_not_asked_for(hub: HubServer, repo: Repository) -> None:
    index = cached_file(repo.id, INDEX)
    first = cached_shards(repo.id, index)
    hub.seen.clear()
    assert cached_shards(repo.id, index) == first
    assert cached_shards(repo.id, index, local_files_only=True) == first
    assert hub.seen == []


def test_shards_of_a_subfolder(hub: HubServer) -> None:
    hub.add("maker/parts", {f"unet/{name}": data for name, data in FILES.items()})
    paths = cached_shards("maker/parts", INDEX, subfolder="unet")
    assert [Path(path).parent.name for path in paths] == ["unet"] * COUNT


def test_broken_connections_go_on_where_they_broke(hub: HubServer, repo: Repository) -> None:
    for name in NAMES:
        hub.fail(name, method="GET", cut_after=150_000, times=1)
    paths = cached_shards(repo.id, INDEX)
    assert [Path(path).read_bytes() for path in paths] == list(SHARDS.values())
    assert all(len(hub.gets(_blobs(repo)[name])) == 2 for name in NAMES)


def test_damaged_shard_is_an_error_and_the_others_stay(hub: HubServer, repo: Repository) -> None:
    hub.fail(NAMES[2], method="GET", damage=True, times=1)
    with pytest.raises(errors.CorruptDownload, match=NAMES[2]):
        cached_shards(repo.id, INDEX)
    assert cached_file(repo.id, NAMES[2], missing="none", local_files_only=True) is None
    hub.seen.clear()
    assert len(cached_shards(repo.id, INDEX)) == COUNT
    assert len(hub.gets(_blobs(repo)[NAMES[2]])) == 1


def test_first_error_stops_the_other_shards(
    hub: HubServer, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()
    answer = hub.answer_cdn

    def slow(asked: Asked) -> Answer:
        if NAMES[0] in asked.path:
            refused.set()
            return answer(asked)._replace(status=403)
        refused.wait(timeout=20)
        return answer(asked)

    monkeypatch.setattr(hub._servers[1], "answer", slow)
    start = time.monotonic()
    with pytest.raises(errors.AccessDenied, match=NAMES[0]):
        cached_shards(repo.id, INDEX)
    assert time.monotonic() - start < 20


def test_missing_shard_is_named_with_its_index(hub: HubServer) -> None:
    hub.add("maker/lost", FILES | {INDEX: _index(["gone.safetensors"])})
    with pytest.raises(errors.ShardNotFound, match=rf"`{INDEX}`.*`gone.safetensors`.*not there"):
        cached_shards("maker/lost", INDEX)


def test_shard_outside_its_folder_is_refused(hub: HubServer) -> None:
    hub.add("maker/evil", {INDEX: _index(["../../secret.safetensors"])})
    with pytest.raises(errors.UnsafeShardName):
        cached_shards("maker/evil", INDEX)


def test_offline_without_a_shard_is_an_error(repo: Repository) -> None:
    index = cached_file(repo.id, INDEX)
    with pytest.raises(errors.NotCached, match=r"model-0000\d-of-00005"):
        cached_shards(repo.id, index, local_files_only=True)


def test_shards_of_a_folder_are_beside_their_index(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    wanted = [str(tmp_path / name) for name in NAMES]
    assert cached_shards(tmp_path, tmp_path / INDEX) == wanted
    assert cached_shards(tmp_path, INDEX) == wanted
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(errors.ShardNotFound, match=NAMES[1]):
        cached_shards(tmp_path, INDEX)


def test_proxies_serve_all_threads(
    hub: HubServer, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    template = "http://hub.invalid/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    proxies = {"http://hub.invalid": hub.url}
    assert len(cached_shards(repo.id, INDEX, proxies=proxies)) == COUNT
