"""A file by its name: from a folder, from the cache, from the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hub_server.client import environment
from windlass import errors
from windlass.hub import cached_file, commit_of, has_file, list_files, take_token

if TYPE_CHECKING:
    from hub_server import HubServer

WEIGHTS = bytes(range(256)) * 4000
FILES = {"config.json": b'{"hidden_size": 4}\n', "model.safetensors": WEIGHTS}


@pytest.fixture
def repo(hub: HubServer) -> str:
    hub.add("maker/model", FILES)
    hub.accounts["hf_reader"] = _reader()
    return "maker/model"


def _reader() -> Any:
    from hub_server.store import Account

    return Account("reader", may_write=False)


@pytest.mark.parametrize("name", FILES)
def test_file_of_the_hub_is_fetched(repo: str, name: str) -> None:
    assert Path(cached_file(repo, name)).read_bytes() == FILES[name]


def test_second_call_fetches_no_byte_again(repo: str, hub: HubServer) -> None:
    first = cached_file(repo, "model.safetensors")
    hub.seen.clear()
    assert cached_file(repo, "model.safetensors") == first
    assert {seen.method for seen in hub.seen} == {"HEAD"}


def test_requests_say_that_windlass_asks(repo: str, hub: HubServer) -> None:
    cached_file(repo, "config.json")
    assert all("windlass/" in seen.agent for seen in hub.seen)


def test_a_known_commit_that_is_cached_asks_nothing(repo: str, hub: HubServer) -> None:
    commit = commit_of(cached_file(repo, "config.json"))
    assert commit == hub.repositories[repo].head.sha
    hub.seen.clear()
    cached_file(repo, "config.json", revision=commit)
    assert hub.seen == []


def test_a_new_commit_is_noticed(repo: str, hub: HubServer) -> None:
    from hub_server.store import stored

    cached_file(repo, "config.json")
    hub.repositories[repo].commit({"config.json": stored("config.json", b"{}")})
    assert Path(cached_file(repo, "config.json")).read_bytes() == b"{}"


def test_revisions_are_told_apart(repo: str, hub: HubServer) -> None:
    from hub_server.store import stored

    files = {"config.json": stored("config.json", b'{"of": "branch"}')}
    old = hub.repositories[repo].head.sha
    new = hub.repositories[repo].commit(files, ref="v2").sha
    hub.repositories[repo].refs["refs/pr/1"] = new
    read = {
        revision: Path(cached_file(repo, "config.json", revision=revision)).read_bytes()
        for revision in (None, "main", "v2", "refs/pr/1", old, new)
    }
    assert [text for text, wanted in read.items() if wanted == FILES["config.json"]] == [
        None,
        "main",
        old,
    ]


def test_subfolder_of_a_repository(hub: HubServer) -> None:
    hub.add("maker/parts", {"unet/config.json": b"{}", "config.json": b"[]"})
    path = cached_file("maker/parts", "config.json", subfolder="unet")
    assert Path(path).read_bytes() == b"{}"
    assert has_file("maker/parts", "config.json", subfolder="unet")
    assert not has_file("maker/parts", "config.json", subfolder="vae")


def test_cache_dir_is_used(repo: str, tmp_path: Path) -> None:
    path = cached_file(repo, "config.json", cache_dir=tmp_path / "mine")
    assert Path(path).is_relative_to(tmp_path / "mine")


def test_force_download_fetches_again(repo: str, hub: HubServer) -> None:
    path = Path(cached_file(repo, "model.safetensors"))
    path.resolve().write_bytes(b"spoiled")
    assert Path(cached_file(repo, "model.safetensors")).read_bytes() == b"spoiled"
    forced = cached_file(repo, "model.safetensors", force_download=True)
    assert Path(forced).read_bytes() == WEIGHTS
    assert len(hub.gets(f"/{hub.repositories[repo].head.files['model.safetensors'].etag}")) == 2


def test_broken_connection_goes_on_where_it_broke(repo: str, hub: HubServer) -> None:
    etag = hub.repositories[repo].head.files["model.safetensors"].etag
    hub.fail(etag, method="GET", cut_after=len(WEIGHTS) // 2, times=1)
    assert Path(cached_file(repo, "model.safetensors")).read_bytes() == WEIGHTS
    ranges = [seen.range for seen in hub.gets(etag)]
    assert ranges == [None, f"bytes={len(WEIGHTS) // 2}-"]


def test_connection_that_always_breaks_ends_in_an_error(repo: str, hub: HubServer) -> None:
    hub.fail("config.json", method="GET", cut_after=0)
    with pytest.raises(errors.HubUnavailable, match=r"config\.json.*connection to the hub failed"):
        cached_file(repo, "config.json")


@pytest.mark.parametrize("name", FILES)
def test_wrong_hash_is_an_error_and_leaves_nothing(repo: str, hub: HubServer, name: str) -> None:
    etag = hub.repositories[repo].head.files[name].etag
    hub.fail(name, method="GET", damage=True, times=1)
    with pytest.raises(errors.CorruptDownload, match=f"{name}.*hash should be {etag}"):
        cached_file(repo, name)
    assert cached_file(repo, name, local_files_only=True, missing="none") is None
    assert Path(cached_file(repo, name)).read_bytes() == FILES[name]


def test_wrong_size_is_an_error_and_leaves_nothing(repo: str, hub: HubServer) -> None:
    hub.fail("model.safetensors", method="GET", longer_by=5, times=1)
    with pytest.raises(errors.CorruptDownload, match=r"model\.safetensors.*another size"):
        cached_file(repo, "model.safetensors")
    assert Path(cached_file(repo, "model.safetensors")).read_bytes() == WEIGHTS


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_passes_is_waited_for(repo: str, hub: HubServer, status: int) -> None:
    hub.fail("/resolve/", method="HEAD", status=status, times=3)
    assert Path(cached_file(repo, "config.json")).read_bytes() == FILES["config.json"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, errors.RateLimited), (503, errors.HubUnavailable), (500, errors.HubUnavailable)],
)
def test_trouble_that_stays_is_an_error(
    repo: str, hub: HubServer, status: int, error: type[Exception]
) -> None:
    hub.fail("/resolve/", status=status)
    with pytest.raises(error, match=f"config.json` of `{repo}`.*{status}"):
        cached_file(repo, "config.json")


def test_hub_that_is_down_leaves_what_is_known(repo: str, hub: HubServer) -> None:
    path = cached_file(repo, "config.json")
    assert cached_file(repo, "other.json", missing="none") is None
    hub.fail("/", status=503)
    assert cached_file(repo, "config.json") == path
    assert cached_file(repo, "other.json", missing="none") is None
    with pytest.raises(errors.FileNotInRepository, match=r"other\.json.*before"):
        cached_file(repo, "other.json")


@pytest.mark.parametrize(
    ("status", "error"), [(429, errors.RateLimited), (503, errors.HubUnavailable)]
)
def test_hub_that_does_not_answer_is_not_taken_for_a_missing_file(
    repo: str, hub: HubServer, status: int, error: type[Exception]
) -> None:
    cached_file(repo, "config.json")
    hub.fail("/", status=status)
    with pytest.raises(error):
        cached_file(repo, "model.safetensors", missing="none")


def test_files_of_a_repository_or_its_subfolder_are_listed(hub: HubServer) -> None:
    hub.add("maker/deep", {"config.json": b"{}", "sub/model.safetensors": b"x"})
    assert list_files("maker/deep") == {"config.json", "sub/model.safetensors"}
    assert list_files("maker/deep", subfolder="sub") == {"model.safetensors"}
    with pytest.raises(errors.RepositoryNotFound):
        list_files("maker/none")


def test_missing_file_is_an_error_or_none(repo: str) -> None:
    with pytest.raises(errors.FileNotInRepository, match=r"no `other.json` of `maker/model`"):
        cached_file(repo, "other.json")
    assert cached_file(repo, "other.json", missing="none") is None


@pytest.mark.parametrize("missing", ["raise", "none"])
@pytest.mark.usefixtures("hub")
def test_missing_repository_is_an_error(missing: Any) -> None:
    with pytest.raises(
        errors.RepositoryNotFound, match=r"no repository `maker/none`.*hf auth login"
    ):
        cached_file("maker/none", "config.json", missing=missing)


@pytest.mark.parametrize("missing", ["raise", "none"])
def test_missing_revision_is_an_error(repo: str, missing: Any) -> None:
    with pytest.raises(errors.RevisionNotFound, match=r"`maker/model` has no .*'no-such'"):
        cached_file(repo, "config.json", revision="no-such", missing=missing)


@pytest.mark.parametrize("missing", ["raise", "none"])
def test_gated_repository_says_what_to_do(hub: HubServer, missing: Any) -> None:
    hub.add("maker/gated", FILES, gated=True)
    with pytest.raises(errors.AccessDenied, match=r"`maker/gated` is gated: ask for access"):
        cached_file("maker/gated", "config.json", missing=missing)


def test_private_repository_takes_a_token(hub: HubServer) -> None:
    hub.add("maker/private", FILES, private=True)
    hub.accounts["hf_reader"] = _reader()
    with pytest.raises(errors.RepositoryNotFound, match="private"):
        cached_file("maker/private", "config.json")
    assert cached_file("maker/private", "config.json", token="hf_reader")


def test_wrong_token_is_an_error(repo: str) -> None:
    with pytest.raises(errors.AccessDenied, match=r"401.*token"):
        cached_file(repo, "config.json", token="hf_wrong")


def test_forbidden_file_is_an_error(repo: str, hub: HubServer) -> None:
    hub.fail("config.json", status=403)
    with pytest.raises(errors.AccessDenied, match="403"):
        cached_file(repo, "config.json")


def test_token_stays_with_the_hub(repo: str, hub: HubServer) -> None:
    cached_file(repo, "model.safetensors", token="hf_reader")
    at_the_hub = [seen.token for seen in hub.seen if "/resolve/" in seen.path]
    elsewhere = [seen.token for seen in hub.seen if "/resolve/" not in seen.path]
    assert set(at_the_hub) == {"hf_reader"}
    assert set(elsewhere) == {None}


def test_token_false_sends_none(repo: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    cached_file(repo, "config.json", token=False)
    assert {seen.token for seen in hub.seen} == {None}
    hub.seen.clear()
    cached_file(repo, "config.json")
    assert {seen.token for seen in hub.seen} == {"hf_reader"}


def test_old_name_of_token_is_taken_with_a_warning(repo: str, hub: HubServer) -> None:
    with pytest.warns(FutureWarning, match="use_auth_token is deprecated, use token"):
        cached_file(repo, "config.json", use_auth_token="hf_reader")
    assert {seen.token for seen in hub.seen} == {"hf_reader"}
    with (
        pytest.warns(FutureWarning, match="use_auth_token"),
        pytest.raises(ValueError, match="both given"),
    ):
        take_token("a", "b")


def test_resume_download_does_nothing_but_warn(repo: str) -> None:
    with pytest.warns(FutureWarning, match="resume_download .* always resume"):
        assert cached_file(repo, "config.json", resume_download=False)


def test_offline_takes_what_is_cached(
    repo: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    path = cached_file(repo, "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.seen.clear()
    assert cached_file(repo, "config.json") == path
    assert cached_file(repo, "model.safetensors", missing="none") is None
    with pytest.raises(errors.NotCached, match=r"model.safetensors.*unset HF_HUB_OFFLINE"):
        cached_file(repo, "model.safetensors")
    with pytest.raises(errors.NotCached, match=r"`maker/other`.*HF_HUB_OFFLINE"):
        cached_file("maker/other", "config.json", missing="none")
    assert (has_file(repo, "config.json"), has_file(repo, "model.safetensors")) == (True, False)
    assert hub.seen == []


def test_local_files_only_asks_nothing(repo: str, hub: HubServer) -> None:
    with pytest.raises(errors.NotCached, match="local_files_only=True was given"):
        cached_file(repo, "config.json", local_files_only=True)
    assert hub.seen == []
    path = cached_file(repo, "config.json")
    assert cached_file(repo, "config.json", local_files_only=True) == path
    assert has_file(repo, "config.json", local_files_only=True)


@pytest.mark.usefixtures("hub")
def test_no_connection_and_no_cache_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"  # Nobody is there.
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(errors.NotCached, match="could not be reached: check the connection"):
        cached_file("maker/model", "config.json")


def test_something_that_is_no_hub_is_an_error(repo: str, hub: HubServer) -> None:
    hub.fail("/resolve/", status=204)
    with pytest.raises(errors.HubError, match=r"config\.json.*X-Repo-Commit"):
        cached_file(repo, "config.json")


def test_contradicting_arguments_are_an_error(repo: str) -> None:
    with pytest.raises(ValueError, match="force_download=True"):
        cached_file(repo, "config.json", force_download=True, local_files_only=True)
    with pytest.raises(ValueError, match='missing should be "raise" or "none"'):
        cached_file(repo, "config.json", missing="null")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="colour"):
        cached_file(repo, "config.json", colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize("source", ["./no/such/folder", "/no/such/folder", "a/b/c", "", "a--b"])
def test_what_is_neither_folder_nor_id_is_an_error(hub: HubServer, source: str) -> None:
    with pytest.raises(errors.InvalidRepositoryId, match="no folder, and no id of a repository"):
        cached_file(source, "config.json", missing="none")
    assert hub.seen == []


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_name_that_leaves_the_repository_is_an_error(repo: str, name: str) -> None:
    with pytest.raises(ValueError, match="Invalid filename"):
        cached_file(repo, name)


def test_has_file_asks_without_fetching(repo: str, hub: HubServer) -> None:
    assert has_file(repo, "model.safetensors")
    assert not has_file(repo, "pytorch_model.bin")
    assert not has_file(repo, "config.json", revision="main", subfolder="x")
    assert [(seen.method, seen.path) for seen in hub.seen if seen.method != "HEAD"] == []
    with pytest.raises(errors.RepositoryNotFound):
        has_file("maker/none", "config.json")
    with pytest.raises(errors.RevisionNotFound):
        has_file(repo, "config.json", revision="no-such")


def test_proxies_are_used_for_one_call(
    repo: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    template = "http://hub.invalid/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    proxies = {"http": hub.url.removeprefix("http://")}
    assert Path(cached_file(repo, "config.json", proxies=proxies)).is_file()
    assert all(seen.path.startswith("http://hub.invalid/") for seen in hub.seen)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    hub.seen.clear()
    cached_file(repo, "config.json")
    assert [seen.path for seen in hub.seen] == [f"/{repo}/resolve/main/config.json"]


def test_proxy_for_one_host_leaves_the_others(repo: str) -> None:
    proxies = {"http://hub.invalid": "127.0.0.1:9"}
    assert Path(cached_file(repo, "config.json", proxies=proxies)).is_file()


def test_local_folder_needs_no_hub(tmp_path: Path, hub: HubServer) -> None:
    (tmp_path / "model" / "part").mkdir(parents=True)
    file = tmp_path / "model" / "part" / "config.json"
    file.write_text("{}")
    folder = tmp_path / "model"
    assert cached_file(folder, "config.json", subfolder="part") == os.fspath(file)
    assert has_file(folder, "config.json", subfolder="part")
    assert not has_file(folder, "config.json")
    assert cached_file(folder, "config.json", missing="none") is None
    with pytest.raises(errors.FileNotInRepository, match=r"no file `x/config.json` in the folder"):
        cached_file(folder, "config.json", subfolder="x")
    assert hub.seen == []
    assert commit_of(file) is None


IN_A_PROCESS = """
import sys, pathlib
import windlass.hub
assert "huggingface_hub" not in sys.modules and "torch" not in sys.modules
try:
    print(pathlib.Path(windlass.hub.cached_file(*sys.argv[1:])).read_text(), end="")
except windlass.HubError as error:
    print(type(error).__name__, error)
assert "torch" not in sys.modules
"""


def _in_a_process(hub: HubServer, home: Path, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(hub, home, **more),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_environment_says_where_the_hub_is_and_who_asks(
    repo: str, hub: HubServer, tmp_path: Path
) -> None:
    said = _in_a_process(hub, tmp_path, repo, "config.json", HF_TOKEN="hf_reader")
    assert said.encode() == FILES["config.json"]
    assert {seen.token for seen in hub.seen if "/resolve/" in seen.path} == {"hf_reader"}
    hub.seen.clear()
    said = _in_a_process(hub, tmp_path, repo, "model.safetensors", HF_HUB_OFFLINE="1")
    assert said.startswith("NotCached `model.safetensors` of `maker/model` is not in the cache")
    assert hub.seen == []


def test_missing_huggingface_hub_is_told_how_to_install() -> None:
    code = (
        "import sys, windlass.hub\nsys.modules['huggingface_hub'] = None\n"
        "windlass.hub.cached_file('maker/model', 'config.json')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'windlass[hub]'" in done.stderr.splitlines()[-1]
