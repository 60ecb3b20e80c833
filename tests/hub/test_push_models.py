"""Models that are sent to the hub, by `save_pretrained` and by `push_to_hub`: every argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from builders.pretrained import MODELS, assert_same_state, new_model
from hub_server.store import Account
from windlass import errors

if TYPE_CHECKING:
    from pathlib import Path

    from hub_server import HubServer
    from hub_server.store import Repository

# huggingface_hub 2.4 sends files without xet in a way that its HTTP library calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Labels = MODELS.TinyForLabels


@pytest.fixture(autouse=True)
def logged_in(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.accounts["hf_me"] = Account("me")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.chdir(tmp_path)


def _send(folder: Path, **options: Any) -> Any:
    model = new_model()
    model.save_pretrained(folder, push_to_hub=True, **options)
    return model


def _repo(hub: HubServer, name: str = "me/mine") -> Repository:
    return hub.repositories[name]


def test_folder_gives_the_name_and_the_save_is_what_is_sent(hub: HubServer, tmp_path: Path) -> None:
    model = _send(tmp_path / "mine", max_shard_size=300)
    assert "model.safetensors.index.json" in _repo(hub).names
    assert_same_state(Labels.from_pretrained("me/mine").state_dict(), model.state_dict())


def test_readme_of_the_folder_is_kept(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("---\nlicense: mit\n---\nMy words.\n")
    _send(tmp_path / "mine", tags="small")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card == "---\nlicense: mit\ntags:\n- small\n---\nMy words.\n"
    assert _repo(hub).head.files["README.md"].data.decode() == card


def test_tags_of_model_and_call_are_in_the_card(hub: HubServer, tmp_path: Path) -> None:
    model = new_model()
    model.add_model_tags("tiny")
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, tags=["small", "tiny"])
    card = _repo(hub).head.files["README.md"].data.decode()
    assert "tags:\n- tiny\n- small\n---" in card


def test_message_and_description(hub: HubServer, tmp_path: Path) -> None:
    _send(tmp_path / "mine", commit_message="Better", commit_description="by 2 %")
    assert _repo(hub).head[2:] == ("Better", "by 2 %")


@pytest.mark.parametrize("private", [True, False])
def test_private(hub: HubServer, tmp_path: Path, *, private: bool) -> None:
    _send(tmp_path / "mine", private=private)
    assert _repo(hub).private == private


def test_pull_request(hub: HubServer, tmp_path: Path) -> None:
    _send(tmp_path / "mine", create_pr=True)
    repo = _repo(hub)
    assert "config.json" not in repo.names
    assert "config.json" in repo.commits[repo.refs["refs/pr/1"]].files


def test_branch(hub: HubServer, tmp_path: Path) -> None:
    _send(tmp_path / "mine", revision="trial")
    repo = _repo(hub)
    assert "config.json" not in repo.names
    assert "config.json" in repo.commits[repo.refs["trial"]].files


def test_token_is_the_one_given(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(errors.AccessDenied):
        _send(tmp_path / "mine")
    _send(tmp_path / "mine", token="hf_me")
    assert "config.json" in _repo(hub).names


def test_old_names_say_where(hub: HubServer, tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="organization is deprecated"):
        _send(tmp_path / "mine", organization="team")
    with pytest.warns(FutureWarning, match="repo_url is deprecated"):
        _send(tmp_path / "mine", repo_url=f"{hub.url}/team/other")
    assert set(hub.repositories) == {"team/mine", "team/other"}


def test_damaged_card_is_an_error_unless_ignored(hub: HubServer, tmp_path: Path) -> None:
    hub.add("me/mine", {"README.md": b"---\nmodel-index: 5\n---\nWords.\n"})
    with pytest.raises(ValueError, match="metadata"):
        _send(tmp_path / "mine")
    _send(tmp_path / "mine", ignore_metadata_errors=True)
    assert "config.json" in _repo(hub).names


def test_unknown_argument_is_refused_before_anything_is_done(
    hub: HubServer, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="comit_message"):
        _send(tmp_path / "mine", comit_message="x")
    assert not hub.repositories
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["use_temp_dir", "temp_dir"])
def test_argument_for_another_folder_has_no_effect(
    hub: HubServer, tmp_path: Path, name: str
) -> None:
    with pytest.warns(UserWarning, match=f"{name} has no effect"):
        _send(tmp_path / "mine", **{name: True})
    assert "config.json" in _repo(hub).names
    assert (tmp_path / "mine" / "config.json").exists()


def test_model_is_pushed_with_its_tags(hub: HubServer) -> None:
    model = new_model()
    model.add_model_tags("tiny")
    model.push_to_hub("mine", max_shard_size=300, commit_message="First", tags="small")
    repo = _repo(hub)
    assert repo.head.summary == "First"
    assert "model.safetensors.index.json" in repo.names
    assert "- tiny\n- small\n" in repo.head.files["README.md"].data.decode()
    assert_same_state(Labels.from_pretrained("me/mine").state_dict(), model.state_dict())


def test_model_is_pushed_as_pickles(hub: HubServer) -> None:
    new_model().push_to_hub("mine", safe_serialization=False)
    assert "pytorch_model.bin" in _repo(hub).names


@pytest.mark.parametrize("way", ["push", "save"])
def test_model_that_cannot_be_saved_leaves_no_repository(
    hub: HubServer, tmp_path: Path, way: str
) -> None:
    model = new_model()
    model.tiny.layers[1].dense.weight = model.tiny.layers[0].dense.weight
    send = {
        "push": lambda: model.push_to_hub("mine"),
        "save": lambda: model.save_pretrained(tmp_path / "mine", push_to_hub=True),
    }[way]
    with pytest.raises(errors.SharedTensors):
        send()
    assert not hub.repositories
