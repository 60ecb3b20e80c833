"""Models by the id of a repository: loaded from the hub, and sent there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import windlass
from builders.pretrained import MODELS, assert_same_state, new_model
from hub_server.store import Account
from windlass import errors

if TYPE_CHECKING:
    from pathlib import Path

    from hub_server import HubServer

Labels = MODELS.TinyForLabels


def _upload(hub: HubServer, folder: Path, subfolder: str = "") -> str:
    prefix = f"{subfolder}/" if subfolder else ""
    files = {prefix + file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    hub.add("maker/model", files)
    return "maker/model"


@pytest.mark.parametrize("form", [{}, {"max_shard_size": 300}, {"safe_serialization": False}])
def test_model_is_loaded_by_id(hub: HubServer, tmp_path: Path, form: dict[str, object]) -> None:
    model = new_model()
    model.save_pretrained(tmp_path / "m", **form)
    again = Labels.from_pretrained(_upload(hub, tmp_path / "m"))
    assert_same_state(again.state_dict(), model.state_dict())
    assert again.name_or_path == "maker/model"


def test_weights_come_from_the_commit_of_the_configuration(hub: HubServer, tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    commit = hub.repositories[repo].head.sha
    Labels.from_pretrained(repo)
    paths = [seen.path for seen in hub.seen if "model.safetensors" in seen.path]
    asked = [path for path in paths if "/resolve/" in path]
    assert asked
    assert all(commit in path for path in asked)


def test_subfolder_variant_and_cache_are_passed_on(hub: HubServer, tmp_path: Path) -> None:
    model = new_model()
    model.save_pretrained(tmp_path / "m", variant="fp16")
    repo = _upload(hub, tmp_path / "m", "deep")
    options = {"subfolder": "deep", "variant": "fp16", "cache_dir": tmp_path / "cache"}
    Labels.from_pretrained(repo, **options)
    assert (tmp_path / "cache" / "models--maker--model").is_dir()
    hub.seen.clear()
    again = Labels.from_pretrained(repo, local_files_only=True, **options)
    assert hub.seen == []
    assert_same_state(again.state_dict(), model.state_dict())
    Labels.from_pretrained(repo, force_download=True, **options)
    assert any(seen.method == "GET" for seen in hub.seen)


def test_token_and_revision_are_passed_on(hub: HubServer, tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    with pytest.raises(errors.RevisionNotFound):
        Labels.from_pretrained(repo, revision="no-such")
    with pytest.raises(errors.HubError):
        Labels.from_pretrained(repo, token="hf_nobody")


def test_repository_without_weights_is_told(hub: HubServer, tmp_path: Path) -> None:
    MODELS.TinyConfig().save_pretrained(tmp_path / "m")
    with pytest.raises(errors.CheckpointNotFound, match=r"maker/model.*model\.safetensors"):
        Labels.from_pretrained(_upload(hub, tmp_path / "m"))


def test_offline_without_cache_is_told(hub: HubServer, tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "m")
    with pytest.raises(errors.WindlassError, match="maker/model") as caught:
        Labels.from_pretrained(_upload(hub, tmp_path / "m"), local_files_only=True)
    assert isinstance(caught.value, OSError)


# huggingface_hub 2.4 sends files without xet in a way that its HTTP library calls old.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_save_sends_what_it_writes(hub: HubServer, tmp_path: Path) -> None:
    hub.accounts["hf_writer"] = Account("writer")
    model = new_model()
    model.add_model_tags("small")
    model.save_pretrained(
        tmp_path / "mine", push_to_hub=True, token="hf_writer", repo_id="writer/mine"
    )
    names = hub.repositories["writer/mine"].names
    assert {"config.json", "model.safetensors", "README.md"} <= set(names)
    again = Labels.from_pretrained("writer/mine")
    assert_same_state(again.state_dict(), model.state_dict())
    assert isinstance(again, windlass.PreTrainedModel)
