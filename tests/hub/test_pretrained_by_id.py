"""Models by the id of a repository: loaded from the hub, and sent there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

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


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 503}, errors.HubUnavailable),
        ({"status": 429}, errors.RateLimited),
        ({"method": "GET", "cut_after": 10}, errors.HubUnavailable),
        ({"method": "GET", "damage": True}, errors.CorruptDownload),
    ],
    ids=["down", "too many requests", "cut", "damaged"],
)
@pytest.mark.parametrize("pickle", [True, False], ids=["beside a pickle", "alone"])
def test_weights_that_the_hub_does_not_give_are_not_taken_for_missing(
    hub: HubServer, tmp_path: Path, fault: dict[str, Any], error: type[Exception], *, pickle: bool
) -> None:
    new_model().save_pretrained(tmp_path / "m")
    if pickle:
        new_model(seed=1).save_pretrained(tmp_path / "p", safe_serialization=False)
        (tmp_path / "p" / "pytorch_model.bin").rename(tmp_path / "m" / "pytorch_model.bin")
    repo = _upload(hub, tmp_path / "m")
    hub.fail("model.safetensors", **fault)
    with pytest.raises(error, match=r"model\.safetensors"):
        Labels.from_pretrained(repo)
    hub.faults.clear()
    assert_same_state(Labels.from_pretrained(repo).state_dict(), new_model().state_dict())


def test_hub_that_refuses_every_weights_file_is_asked_no_more(
    hub: HubServer, tmp_path: Path
) -> None:
    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    for name in ("safetensors", ".bin"):
        hub.fail(name, status=429)
    with pytest.raises(errors.RateLimited):
        Labels.from_pretrained(repo)
    assert len(hub.seen) < 20


def test_missing_weights_are_looked_for_once(hub: HubServer, tmp_path: Path) -> None:
    MODELS.TinyConfig().save_pretrained(tmp_path / "m")
    with pytest.raises(errors.CheckpointNotFound):
        Labels.from_pretrained(_upload(hub, tmp_path / "m"))
    assert len(hub.gets("pytorch_model.bin", "HEAD")) == 2  # The file, and its index.


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("tf_model.h5", {}, "tf_model.h5"),
        ("flax_model.msgpack", {}, "flax_model.msgpack"),
        ("model.safetensors", {"variant": "fp16"}, "leave variant out"),
        ("pytorch_model.bin", {"use_safetensors": True}, "leave use_safetensors out"),
    ],
)
def test_weights_of_another_kind_are_hinted_at(
    hub: HubServer, tmp_path: Path, name: str, options: dict[str, Any], hint: str
) -> None:
    MODELS.TinyConfig().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(b"x")
    with pytest.raises(errors.CheckpointNotFound, match=hint):
        Labels.from_pretrained(_upload(hub, tmp_path / "m", "deep"), subfolder="deep", **options)


def test_missing_weights_are_told_also_where_files_are_not_listed(
    hub: HubServer, tmp_path: Path
) -> None:
    MODELS.TinyConfig().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    hub.fail("/api/", status=503)
    with pytest.raises(errors.CheckpointNotFound, match="has none of"):
        Labels.from_pretrained(repo)


@pytest.mark.parametrize("has_model", [True, False])
def test_repository_with_an_adapter_is_refused(
    hub: HubServer, tmp_path: Path, *, has_model: bool
) -> None:
    (tmp_path / "m").mkdir()
    if has_model:
        new_model().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "adapter_config.json").write_text("{}")
    with pytest.raises(errors.NotSupported, match=r"maker/model.*peft"):
        Labels.from_pretrained(_upload(hub, tmp_path / "m"))


def test_offline_with_nothing_but_the_config_cached_is_told(hub: HubServer, tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    MODELS.TinyConfig.from_pretrained(repo)
    with pytest.raises(errors.NotCached, match=r"model\.safetensors.*local_files_only"):
        Labels.from_pretrained(repo, local_files_only=True)


@pytest.mark.parametrize("form", [{}, {"safe_serialization": False}], ids=["safe", "pickle"])
def test_model_that_is_cached_is_loaded_while_the_hub_is_down(
    hub: HubServer, tmp_path: Path, form: dict[str, object]
) -> None:
    new_model().save_pretrained(tmp_path / "m", **form)
    repo = _upload(hub, tmp_path / "m")
    Labels.from_pretrained(repo)
    hub.fail("/", status=503)
    assert_same_state(Labels.from_pretrained(repo).state_dict(), new_model().state_dict())


def test_model_that_is_cached_is_loaded_without_a_connection(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    cache = tmp_path / "cache"
    Labels.from_pretrained(repo, cache_dir=cache)
    shutil.rmtree(cache / "models--maker--model" / ".no_exist")  # As others leave the cache.
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"  # Nobody is there.
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    again = Labels.from_pretrained(repo, cache_dir=cache)
    assert_same_state(again.state_dict(), new_model().state_dict())


class Speaker(Labels):
    def prepare_inputs_for_generation(self, input_ids: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}


def test_generation_config_that_the_hub_does_not_give_is_an_error(
    hub: HubServer, tmp_path: Path
) -> None:
    model = Speaker(MODELS.TinyConfig())
    model.generation_config.top_k = 7
    model.save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    hub.fail("generation_config", status=503)
    with pytest.raises(errors.HubUnavailable, match="generation_config"):
        Speaker.from_pretrained(repo)
    hub.faults.clear()
    assert Speaker.from_pretrained(repo).generation_config.top_k == 7


def test_offline_a_model_needs_no_generation_config(hub: HubServer, tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    Labels.from_pretrained(repo)
    assert Speaker.from_pretrained(repo, local_files_only=True).generation_config.top_k == 50


def test_without_a_connection_a_cached_model_needs_no_generation_config(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from huggingface_hub import constants, snapshot_download

    new_model().save_pretrained(tmp_path / "m")
    repo = _upload(hub, tmp_path / "m")
    snapshot_download(repo, cache_dir=tmp_path / "cache")  # Notes nothing of what is not there.
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"  # Nobody is there.
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    model = Speaker.from_pretrained(repo, cache_dir=tmp_path / "cache")
    assert_same_state(model.state_dict(), new_model().state_dict())
    assert model.generation_config.top_k == 50
    [line] = [line for line in caplog.records if line.name.startswith("windlass.")]
    assert line.levelname == "WARNING"
    assert "generation_config.json is not cached, and the hub cannot be asked" in line.getMessage()


def test_what_a_commit_lacks_is_asked_for_once(hub: HubServer, tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "m", safe_serialization=False)
    repo = _upload(hub, tmp_path / "m")
    Speaker.from_pretrained(repo)
    hub.seen.clear()
    Speaker.from_pretrained(repo)
    assert [seen.path for seen in hub.seen if "config.json" not in seen.path] == []
    assert len(hub.seen) == 1  # Which commit it is by now.
    hub.seen.clear()
    Speaker.from_pretrained(repo, force_download=True)
    assert any("adapter_config" in seen.path for seen in hub.seen)


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
