"""What has `save_pretrained` goes to the hub in one commit, and comes back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hub_server.store import Account
from windlass import errors
from windlass.hub import PushToHubMixin, cached_file, create_and_tag_model_card

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hub_server import HubServer
    from hub_server.store import Repository

# huggingface_hub 2.4 sends files without xet in a way that its HTTP library calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

INDEX = "model.safetensors.index.json"


class Model(PushToHubMixin):
    """Saves what it is told to save."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.options: dict[str, Any] = {}

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        self.options = options
        for name, data in self.files.items():
            path = Path(save_directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


class Config(Model):
    pass


class Gadget(Model):
    pass


SINGLE = {"config.json": b"{}", "model.safetensors": bytes(5000)}


def sharded(count: int, filling: int = 1) -> dict[str, bytes]:
    names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    return {name: bytes([filling]) * 3000 for name in names} | {INDEX: b"{}", "config.json": b"{}"}


@pytest.fixture(autouse=True)
def logged_in(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.accounts["hf_me"] = Account("me")
    hub.accounts["hf_reader"] = Account("reader", may_write=False)
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)


def _repo(hub: HubServer, name: str = "me/model") -> Repository:
    return hub.repositories[name]


def _data(repo: Repository, name: str) -> bytes:
    return repo.head.files[name].data


def test_files_arrive_in_a_new_repository(hub: HubServer) -> None:
    model = Model(SINGLE)
    said = model.push_to_hub("model")
    repo = _repo(hub)
    assert {name: _data(repo, name) for name in SINGLE} == SINGLE
    assert repo.head.files["model.safetensors"].is_lfs
    assert not repo.head.files["config.json"].is_lfs
    assert str(said) == f"{hub.url}/me/model/commit/{repo.head.sha}"
    assert model.options == {"max_shard_size": "5GB", "safe_serialization": True}
    assert os.listdir() == []


def test_what_was_sent_is_what_is_fetched() -> None:
    Model(SINGLE).push_to_hub("me/model")
    for name, data in SINGLE.items():
        assert Path(cached_file("me/model", name)).read_bytes() == data


def test_options_of_the_save_are_handed_on() -> None:
    model = Model(SINGLE)
    model.push_to_hub("model", max_shard_size="1MB", safe_serialization=False)
    assert model.options == {"max_shard_size": "1MB", "safe_serialization": False}


def test_large_files_are_sent_in_parts(hub: HubServer) -> None:
    hub.part_bytes = 1024
    Model(SINGLE).push_to_hub("model")
    assert _data(_repo(hub), "model.safetensors") == SINGLE["model.safetensors"]
    assert len(hub.gets("/lfs/", "PUT")) == 5


def test_files_of_folders_are_sent(hub: HubServer) -> None:
    deep = {"a/one.json": b"1", "a/b/two.json": b"2"}
    Model(SINGLE | deep).push_to_hub("model")
    assert {name: _data(_repo(hub), name) for name in deep} == deep


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Model, "Upload model"), (Config, "Upload config"), (Gadget, "Upload Gadget")],
)
def test_message_says_what_was_sent(hub: HubServer, kind: type[Model], message: str) -> None:
    kind(SINGLE).push_to_hub("model")
    assert _repo(hub).head.summary == message


def test_message_and_description_of_ones_own(hub: HubServer) -> None:
    Model(SINGLE).push_to_hub("model", commit_message="Better", commit_description="by 2 %")
    assert _repo(hub).head[2:] == ("Better", "by 2 %")


def test_private_repository(hub: HubServer) -> None:
    Model(SINGLE).push_to_hub("secret", private=True)
    Model(SINGLE).push_to_hub("open")
    assert (_repo(hub, "me/secret").private, _repo(hub, "me/open").private) == (True, False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SINGLE, sharded(3)),
        (sharded(3), SINGLE),
        (sharded(5), sharded(3)),
        (sharded(2), sharded(2, filling=2)),
    ],
    ids=["shards over one file", "one file over shards", "fewer shards", "the same names"],
)
def test_old_checkpoint_goes_in_the_same_commit(
    hub: HubServer, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    kept = {"adapter_model.safetensors": b"adapter", "model.fp16.safetensors": b"half"}
    Model(old | kept).push_to_hub("model")
    before = len(_repo(hub).commits)
    Model(new).push_to_hub("model")
    repo = _repo(hub)
    assert set(repo.names) == {*new, *kept, ".gitattributes", "README.md"}
    assert {name: _data(repo, name) for name in new} == new
    assert len(repo.commits) == before + 1


def test_unchanged_content_makes_no_commit(hub: HubServer) -> None:
    Model(SINGLE).push_to_hub("model")
    commits = len(_repo(hub).commits)
    Model(SINGLE).push_to_hub("model")
    assert len(_repo(hub).commits) == commits
    assert len(hub.gets("/lfs/", "PUT")) == 1


def test_folder_of_that_name_is_saved_to(hub: HubServer) -> None:
    Path("model").mkdir()
    Path("model/notes.txt").write_text("mine")
    Model(SINGLE).push_to_hub("me/model")
    assert set(os.listdir("model")) == {"notes.txt", "README.md", *SINGLE}
    assert "notes.txt" not in _repo(hub).names  # It was there before, and has not changed.


def test_temporary_folder_where_it_is_asked_for(hub: HubServer) -> None:
    Path("model").mkdir()
    Model(SINGLE).push_to_hub("me/model", use_temp_dir=True)
    assert os.listdir("model") == []
    assert _data(_repo(hub), "config.json") == b"{}"


def test_folder_is_made_where_no_temporary_one_is_wanted() -> None:
    Model(SINGLE).push_to_hub("me/model", use_temp_dir=False)
    assert set(SINGLE) <= set(os.listdir("model"))


def test_path_of_a_folder_gives_the_name(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "fine").mkdir()
    Model(SINGLE).push_to_hub(str(tmp_path / "fine"))
    assert set(SINGLE) <= set(os.listdir(tmp_path / "fine"))
    assert "me/fine" in hub.repositories


def test_traces_of_a_save_stay_at_home(hub: HubServer) -> None:
    Path("model").mkdir()
    traces = {".windlass.lock": b"", "model.windlass-0123/model.safetensors": b"x"}
    Model(SINGLE | traces).push_to_hub("model")
    assert set(_repo(hub).names) == {*SINGLE, ".gitattributes", "README.md"}


def test_branch_is_made(hub: HubServer) -> None:
    Model(SINGLE).push_to_hub("model", revision="trial")
    repo = _repo(hub)
    assert "config.json" not in repo.names
    assert "config.json" in repo.commits[repo.refs["trial"]].files
    Model(SINGLE | {"config.json": b"[]"}).push_to_hub("model", revision="trial")
    assert repo.commits[repo.refs["trial"]].files["config.json"].data == b"[]"


def test_pull_request(hub: HubServer) -> None:
    said = Model(SINGLE).push_to_hub("model", create_pr=True)
    repo = _repo(hub)
    assert "config.json" not in repo.names
    assert "config.json" in repo.commits[repo.refs["refs/pr/1"]].files
    assert said.pr_url.endswith("/me/model/discussions/1")


def test_new_card_names_tags(hub: HubServer) -> None:
    Model(SINGLE).push_to_hub("model", tags=["small", "bert"])
    card = _data(_repo(hub), "README.md").decode()
    assert card.startswith("---\nlibrary_name: windlass\ntags:\n- small\n- bert\n---\n")
    assert "# model" in card


def test_card_of_the_repository_is_kept_and_tagged(hub: HubServer) -> None:
    hub.add("me/model", {"README.md": b"---\ntags:\n- old\nlicense: mit\n---\nMy words.\n"})
    Model(SINGLE).push_to_hub("model", tags=["new", "old"])
    card = _data(_repo(hub), "README.md").decode()
    assert card == "---\ntags:\n- old\n- new\nlicense: mit\n---\nMy words.\n"


def test_card_of_the_folder_goes_before_that_of_the_repository(hub: HubServer) -> None:
    hub.add("me/model", {"README.md": b"---\ntags: []\n---\nTheirs.\n"})
    Path("model").mkdir()
    Path("model/README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    Model(SINGLE).push_to_hub("model", tags="one")
    assert _data(_repo(hub), "README.md").endswith(b"Mine.\n")


def test_damaged_card_is_an_error_unless_ignored(hub: HubServer) -> None:
    hub.add("me/model", {"README.md": b"---\nmodel-index: 5\n---\nWords.\n"})
    with pytest.raises(ValueError, match="metadata"):
        create_and_tag_model_card("me/model", ["x"])
    card = create_and_tag_model_card("me/model", ["x"], ignore_metadata_errors=True)
    assert card.data.tags == ["x"]


def test_token_is_sent(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(errors.AccessDenied, match=r"401.*hf auth login"):
        Model(SINGLE).push_to_hub("me/model")
    Model(SINGLE).push_to_hub("me/model", token="hf_me")
    assert "config.json" in _repo(hub).names


def test_token_without_the_right_to_write_is_an_error(hub: HubServer) -> None:
    hub.add("me/model", {})
    with pytest.raises(errors.AccessDenied, match=r"`me/model`.*403.*lacks the right"):
        Model(SINGLE).push_to_hub("me/model", token="hf_reader")


def test_hub_that_is_down_is_an_error(hub: HubServer) -> None:
    hub.fail("/commit/", status=503)
    with pytest.raises(errors.HubUnavailable, match=r"`me/model`.*503"):
        Model(SINGLE).push_to_hub("me/model")
    assert "config.json" not in _repo(hub).names


def test_upload_that_breaks_off_is_sent_again(hub: HubServer) -> None:
    hub.fail("/lfs/", method="PUT", status=503, times=2)
    Model(SINGLE).push_to_hub("me/model")
    assert _data(_repo(hub), "model.safetensors") == SINGLE["model.safetensors"]


def test_upload_that_is_refused_is_an_error(hub: HubServer) -> None:
    hub.fail("/lfs/", method="PUT", status=403)
    with pytest.raises(errors.AccessDenied, match=r"`me/model`.*403"):
        Model(SINGLE).push_to_hub("me/model")
    assert "config.json" not in _repo(hub).names


def test_card_of_the_repository_serves_a_folder_without_one(hub: HubServer) -> None:
    hub.add("me/model", {"README.md": b"---\ntags: []\n---\nTheirs.\n"})
    Path("model").mkdir()
    Path("model/notes.txt").write_text("mine")
    Model(SINGLE).push_to_hub("model", tags="one")
    assert _data(_repo(hub), "README.md").endswith(b"Theirs.\n")


def test_bad_name_is_an_error() -> None:
    with pytest.raises(errors.InvalidRepositoryId, match="a--b"):
        Model(SINGLE).push_to_hub("me/a--b")


def test_no_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs repo_id"):
        Model(SINGLE).push_to_hub()


def test_old_names_are_understood(hub: HubServer) -> None:
    with pytest.warns(FutureWarning, match="use_auth_token is deprecated, use token"):
        Model(SINGLE).push_to_hub("one", use_auth_token="hf_me")
    with pytest.warns(FutureWarning, match="repo_path_or_name is deprecated, use repo_id"):
        Model(SINGLE).push_to_hub(repo_path_or_name="two")
    with pytest.warns(FutureWarning, match="organization is deprecated"):
        Model(SINGLE).push_to_hub("three", organization="team")
    with pytest.warns(FutureWarning, match="repo_url is deprecated"):
        Model(SINGLE).push_to_hub(repo_url=f"{hub.url}/team/four")
    with pytest.warns(FutureWarning, match="do nothing: finetuned_from"):
        Model(SINGLE).push_to_hub("five", finetuned_from="bert")
    assert set(hub.repositories) == {"me/one", "me/two", "team/three", "team/four", "me/five"}


@pytest.mark.parametrize("old", ["repo_url", "repo_path_or_name"])
def test_old_and_new_name_together_are_an_error(old: str) -> None:
    with (
        pytest.warns(FutureWarning, match=old),
        pytest.raises(ValueError, match=f"repo_id and its old .* {old} are both given"),
    ):
        Model(SINGLE).push_to_hub("model", **{old: "me/model"})


def test_class_without_save_says_so() -> None:
    class Nothing(PushToHubMixin):
        pass

    with pytest.raises(NotImplementedError, match="Nothing has no save_pretrained"):
        Nothing().save_pretrained("folder")


def test_only_modified_files_are_sent(hub: HubServer, tmp_path: Path) -> None:
    hub.add("me/model", {})
    model, folder = Model(SINGLE), tmp_path / "checkpoint"
    folder.mkdir()
    model.save_pretrained(folder)
    before = model._get_files_timestamps(folder)
    assert before == {name: os.path.getmtime(folder / name) for name in SINGLE}
    os.utime(folder / "config.json", (1, 1))
    (folder / "new.json").write_text("{}")
    model._upload_modified_files(folder, "me/model", before)
    assert _repo(hub).names == ["config.json", "new.json"]


def test_repository_is_made_once(hub: HubServer) -> None:
    model = Model(SINGLE)
    assert model._create_repo("model", private=True) == "me/model"
    assert model._create_repo("model") == "me/model"
    assert _repo(hub).private
