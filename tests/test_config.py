"""`PretrainedConfig`, compared with that of transformers 4.46.3."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from oracle.config_classes import config_classes, describe_config
from windlass import PretrainedConfig
from windlass.dtype_names import DtypeName
from windlass.errors import (
    ConfigNotFound,
    InvalidConfig,
    InvalidConfigFile,
    NotSupported,
    SaveFailed,
    UnknownDtype,
)

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.client import Oracle

CLASSES = config_classes(PretrainedConfig)
DTYPE_NAMES = ("float32", "float16", "bfloat16", "half", "double", "float8_e4m3fn", "long")

_numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 1e-5])
_json = st.recursive(
    st.none() | st.booleans() | _numbers | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
_labels = st.dictionaries(
    st.integers(0, 4) | st.integers(0, 4).map(str), st.text(max_size=3), max_size=3
)
_heads = st.dictionaries(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2), max_size=2)
_known = {
    "return_dict": st.booleans(),
    "output_attentions": st.booleans(),
    "torchscript": st.booleans(),
    "tie_word_embeddings": st.booleans(),
    "is_decoder": st.booleans(),
    "use_cache": st.booleans(),
    "torch_dtype": st.none() | st.sampled_from(DTYPE_NAMES) | st.just(torch.bfloat16),
    "pruned_heads": _heads,
    "architectures": st.none() | st.just(["Tiny"]),
    "num_labels": st.integers(0, 4),
    "id2label": st.none() | _labels | st.just([1]),
    "label2id": st.none()
    | st.dictionaries(st.text(max_size=3), st.integers(0, 4), max_size=3)
    | st.just([1]),
    "problem_type": st.sampled_from([None, "regression", "guessing"]),
    "bos_token_id": st.none() | _numbers,
    "max_length": _numbers,
    "temperature": _numbers,
    "suppress_tokens": st.none() | st.lists(st.integers(0, 3), max_size=2),
    "attn_implementation": st.sampled_from([None, "eager", "sdpa"]),
    "name_or_path": st.text(max_size=5),
    "transformers_version": st.just("4.1.0"),
    "quantization_config": st.just({"bits": 4, "_pre_quantization_dtype": 1}),
    "task_specific_params": _json,
    "hidden_size": st.integers(1, 9),
    "n_embd": st.integers(1, 9),
    "depth": st.integers(1, 3),
    "width": st.integers(1, 3),
    "mood": _json,
    "torch_dtypes": st.just({"torch_dtype": torch.float16}),
}
ARGUMENTS = st.fixed_dictionaries({}, optional=_known)
_parts = st.fixed_dictionaries(
    {},
    optional={
        "text": st.fixed_dictionaries({}, optional={"n_embd": st.integers(7, 9), "mood": _json}),
        "vision": st.fixed_dictionaries({}, optional={"width": st.integers(3, 5)}),
        "depth": st.integers(1, 3),
    },
)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a kind of configuration and arguments for it."""
    kind = draw(st.sampled_from(list(CLASSES)))
    arguments = draw(ARGUMENTS)
    if kind == "nested":
        arguments |= draw(_parts)
    if kind == "deep":
        arguments |= draw(st.fixed_dictionaries({}, optional={"inner": _parts}))
    if kind == "composed":
        arguments |= draw(st.fixed_dictionaries({}, optional={"decoder": st.just({"n_embd": 9})}))
    return {"kind": kind, "arguments": arguments}


@given(cases())
def test_a_configuration_is_that_of_446(oracle: Oracle, case: dict[str, Any]) -> None:
    [answer] = oracle.ask("config.describe", [case])
    assert_same(answer, lambda: describe_config(CLASSES[case["kind"]](**case["arguments"])))


def _as_file(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields as a file would have them."""
    return {
        name: str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
        for name, value in fields.items()
    }


@given(cases(), ARGUMENTS, st.sampled_from([{}, {"foo": 1}, {"text": {"n_embd": 3}}]))
def test_arguments_beside_fields_are_split_as_by_446(
    oracle: Oracle, case: dict[str, Any], arguments: dict[str, Any], more: dict[str, Any]
) -> None:
    case = {"kind": case["kind"], "fields": case["arguments"], "arguments": arguments | more}
    [answer] = oracle.ask("config.from_dict", [case])

    def ours() -> list[Any]:
        kind = CLASSES[case["kind"]]
        config, unused = kind.from_dict(
            case["fields"], return_unused_kwargs=True, **case["arguments"]
        )
        return [describe_config(config), unused]

    assert_same(answer, ours)


@given(cases())
def test_each_reads_what_the_other_wrote(
    oracle: Oracle, tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("configs")
    ours, theirs = folder / "ours", folder / "theirs"
    case["arguments"].pop("torch_dtypes", None)
    [saved] = oracle.ask("config.save", [{**case, "folder": str(theirs)}])
    kind = CLASSES[case["kind"]]
    if saved.error:
        with pytest.raises(saved.kind):
            kind(**case["arguments"])
        return
    with (
        pytest.warns(UserWarning, match="generation")
        if saved.warnings
        else contextlib.nullcontext()
    ):
        kind(**case["arguments"]).save_pretrained(ours)
    assert (ours / "config.json").read_bytes() == (theirs / "config.json").read_bytes()
    if case["kind"] == "composed":
        case["arguments"] = {}
    ask = {"kind": case["kind"], "path": str(ours), "arguments": {"output_hidden_states": True}}
    [read] = oracle.ask("config.from_folder", [ask])
    config, unused = kind.from_pretrained(
        theirs, return_unused_kwargs=True, output_hidden_states=True
    )
    assert [describe_config(config), unused] == read.value


@given(
    cases(),
    st.lists(
        st.tuples(
            st.sampled_from(["num_labels", "hidden_size", "n_embd", "name_or_path", "mood"]),
            st.integers(0, 4),
        ),
        max_size=3,
    ),
)
def test_attributes_are_set_as_by_446(
    oracle: Oracle, case: dict[str, Any], values: list[tuple[str, int]]
) -> None:
    case = {**case, "set": values, "get": ["id2label", "label2id", "name_or_path"]}
    [answer] = oracle.ask("config.attributes", [case])

    def ours() -> list[Any]:
        config = CLASSES[case["kind"]](**case["arguments"])
        for name, value in values:
            setattr(config, name, value)
        return [getattr(config, name) for name in case["get"]]

    assert_same(answer, ours)


@pytest.mark.parametrize(
    "text",
    [
        "width=12,mood=bad",
        "width=-1",
        "tie_word_embeddings=yes",
        "tie_word_embeddings=0,torchscript=TRUE",
        "temperature=0.25",
        "width=wide",
        "torchscript=maybe",
        "nothing=1",
        "pruned_heads=1",
        "bos_token_id=3",
    ],
)
def test_text_updates_as_in_446(oracle: Oracle, text: str) -> None:
    case = {"kind": "changed", "arguments": {"mood": "good"}, "text": text}
    [answer] = oracle.ask("config.update_from_string", [case])

    def ours() -> dict[str, Any]:
        config = CLASSES["changed"](mood="good")
        config.update_from_string(text)
        return describe_config(config)

    assert_same(answer, ours)


def test_text_with_one_wrong_field_sets_none() -> None:
    config = CLASSES["changed"](width=1)
    with pytest.raises(InvalidConfig, match="`field=value`"):
        config.update_from_string("width=2,nothing=1")
    assert config.width == 1


def test_dtype_name_is_a_dtype_when_read_and_text_in_a_file() -> None:
    config = PretrainedConfig(torch_dtype="half")
    assert config.torch_dtype is torch.float16
    assert config.to_dict()["torch_dtype"] == "float16"
    assert config == PretrainedConfig(torch_dtype=torch.float16)
    assert config != PretrainedConfig(torch_dtype=torch.float32)


def test_text_that_is_set_later_stays_text(oracle: Oracle) -> None:
    case = {"kind": "base", "arguments": {}, "set": [("torch_dtype", "float16")]}
    [answer] = oracle.ask("config.attributes", [{**case, "get": ["torch_dtype"]}])
    config = PretrainedConfig()
    config.torch_dtype = "float16"
    assert [config.torch_dtype] == answer.value == ["float16"]


def test_every_dtype_of_torch_is_known_by_every_name() -> None:
    dtypes = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
    assert {name: PretrainedConfig(torch_dtype=name).torch_dtype for name in dtypes} == dtypes
    assert all(f"torch.{DtypeName(name)}" == str(dtype) for name, dtype in dtypes.items())


@pytest.mark.parametrize("name", ["float31", "nn", "Tensor", "torch.float16", "auto"])
def test_unknown_dtype_is_refused(oracle: Oracle, name: str) -> None:
    case = {"kind": "base", "arguments": {"torch_dtype": name}}
    [answer] = oracle.ask("config.attributes", [{**case, "set": [], "get": []}])
    with pytest.raises(UnknownDtype, match=name):
        PretrainedConfig(torch_dtype=name)
    # 4.46 takes whatever torch has by that name; see docs/differences.md.
    assert bool(answer.error) != hasattr(torch, name)


def test_configs_of_equal_fields_are_equal() -> None:
    kind = CLASSES["mapped"]
    assert kind(n_embd=3) == kind(hidden_size=3, n_embd=3)
    assert kind(n_embd=3) != kind(n_embd=4)
    assert kind() != 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(kind())


def test_mapped_name_is_the_same_attribute() -> None:
    config = CLASSES["mapped"](n_embd=3)
    config.hidden_size = 5
    assert (config.n_embd, config.hidden_size) == (5, 5)
    assert "hidden_size" not in config.to_dict()


def test_field_of_a_file_does_not_change_what_names_mean(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"attribute_map": {"n_embd": "torch_dtype"}}')
    config = CLASSES["mapped"].from_pretrained(tmp_path)
    assert config.n_embd == 8


@pytest.mark.parametrize("kind", ["encoder", "decoder", "both", "none"])
def test_text_config_is_the_one_within(kind: str) -> None:
    config = PretrainedConfig()
    if kind in {"encoder", "both"}:
        config.text_encoder = PretrainedConfig(mood="encoder")
    if kind in {"decoder", "both"}:
        config.decoder = PretrainedConfig(mood="decoder")
    if kind == "both":
        with pytest.raises(InvalidConfig, match="text_encoder"):
            config.get_text_config()
    else:
        assert getattr(config.get_text_config(), "mood", "none") == kind
    is_decoder = kind in {"decoder", "both"}
    assert config.get_text_config(decoder=True) is (config.decoder if is_decoder else config)


def test_folder_file_and_subfolder_are_read(tmp_path: Path) -> None:
    CLASSES["mapped"](n_embd=3).save_pretrained(tmp_path / "sub")
    file = tmp_path / "sub" / "config.json"
    for path, options in [
        (tmp_path / "sub", {}),
        (str(file), {}),
        (tmp_path, {"subfolder": "sub"}),
    ]:
        assert CLASSES["mapped"].from_pretrained(path, **options).n_embd == 3
    assert CLASSES["mapped"].from_json_file(file).n_embd == 3


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, ConfigNotFound),
        ("", InvalidConfigFile),
        ("{", InvalidConfigFile),
        ("[1]", InvalidConfigFile),
        ('"text"', InvalidConfigFile),
        (b"\xff\xfe", InvalidConfigFile),
        ("[" * 100_000, InvalidConfigFile),
    ],
    ids=["none", "empty", "cut off", "list", "text", "no UTF-8", "deep"],
)
def test_bad_file_is_named(tmp_path: Path, text: str | bytes | None, error: type) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=r"config\.json") as caught:
        PretrainedConfig.from_pretrained(tmp_path)
    assert isinstance(caught.value, OSError)  # As 4.46 raises.


def test_bad_files_are_errors_of_that_kind_in_446(oracle: Oracle, tmp_path: Path) -> None:
    cases = []
    for text in ("", "{"):
        folder = tmp_path / f"folder {text}"
        folder.mkdir()
        (folder / "config.json").write_text(text)
        cases.append({"kind": "base", "path": str(folder), "arguments": {}})
    cases.append({**cases[0], "path": str(tmp_path / "nowhere")})
    answers = oracle.ask("config.from_folder", cases)
    assert [answer.kind for answer in answers] == [OSError, OSError, OSError]


def test_folder_without_a_config_is_refused(oracle: Oracle, tmp_path: Path) -> None:
    case = {"kind": "base", "path": str(tmp_path), "arguments": {}}
    assert oracle.ask_one("config.from_folder", case).value[0]["diff"].keys() == {
        "transformers_version"
    }
    with pytest.raises(ConfigNotFound, match=r"config\.json"):
        PretrainedConfig.from_pretrained(tmp_path)


def test_address_is_refused() -> None:
    with pytest.raises(ConfigNotFound, match="download"):
        PretrainedConfig.from_pretrained("https://example.com/config.json")


def test_gguf_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="gguf_file"):
        PretrainedConfig.from_pretrained(tmp_path, gguf_file="model.gguf")


def test_file_for_the_newest_known_version_is_read(oracle: Oracle, tmp_path: Path) -> None:
    names = ["config.4.0.0.json", "config.4.9.0.json", "config.4.46.3.json", "config.5.0.0.json"]
    base = {"configuration_files": names, "mood": "base"}
    (tmp_path / "config.json").write_text(json.dumps(base))
    for name in names:
        (tmp_path / name).write_text(json.dumps({"mood": name}))
    case = {"kind": "base", "path": str(tmp_path), "arguments": {}}
    theirs = oracle.ask_one("config.from_folder", case).value[0]["dict"]["mood"]
    assert theirs == "config.4.9.0.json"  # The last one if versions are sorted as texts.
    assert PretrainedConfig.from_pretrained(tmp_path).mood == "config.4.46.3.json"


def test_config_of_another_type_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CLASSES["changed"]().save_pretrained(tmp_path)
    CLASSES["mapped"].from_pretrained(tmp_path)
    assert "`changed`" in caplog.text
    assert "`mapped`" in caplog.text


def test_old_token_name_warns_and_excludes_the_new_one(tmp_path: Path) -> None:
    PretrainedConfig().save_pretrained(tmp_path)
    with pytest.warns(FutureWarning, match="use_auth_token"):
        PretrainedConfig.from_pretrained(tmp_path, use_auth_token="x")
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="both"):
        PretrainedConfig.from_pretrained(tmp_path, use_auth_token="x", token="y")


def test_generation_parameters_warn_when_saved(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="max_length"):
        PretrainedConfig(max_length=7).save_pretrained(tmp_path)
    assert PretrainedConfig.from_pretrained(tmp_path).max_length == 7


def test_gradient_checkpointing_in_a_config_warns() -> None:
    with pytest.warns(UserWarning, match="gradient_checkpointing_enable"):
        config = PretrainedConfig(gradient_checkpointing=True)
    assert config.gradient_checkpointing is True


def test_save_over_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("x")
    with pytest.raises(SaveFailed, match="found a file"):
        PretrainedConfig().save_pretrained(path)


def test_save_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("old")
    path.chmod(0o600)
    os.link(path, tmp_path / "held")
    PretrainedConfig().save_pretrained(tmp_path)
    assert (tmp_path / "held").read_text() == "old"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["config.json", "held"]


def test_class_that_needs_arguments_is_saved_whole(tmp_path: Path) -> None:
    class Strict(PretrainedConfig):
        def __init__(self, width: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.width = width

    Strict(3).save_pretrained(tmp_path)
    assert Strict.from_pretrained(tmp_path).width == 3


def test_fields_given_as_a_dictionary_are_not_changed() -> None:
    fields = {"pruned_heads": {"1": [2]}, "mood": "good"}
    config = PretrainedConfig.from_dict(fields, attn_implementation="sdpa")
    assert fields == {"pruned_heads": {"1": [2]}, "mood": "good"}
    assert config.pruned_heads == {1: [2]}
    assert config._attn_implementation == "sdpa"


def test_default_dictionaries_are_not_shared() -> None:
    PretrainedConfig().pruned_heads[0] = [1]
    assert PretrainedConfig().pruned_heads == {}


class _Sender:
    """Stands for `windlass.hub.PushToHubMixin`: notes what it is asked to do."""

    calls: ClassVar[list[Any]] = []

    def _create_repo(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("create", repo_id, options))
        return f"me/{repo_id}"

    def _get_files_timestamps(self, folder: str) -> dict[str, float]:
        return dict.fromkeys(os.listdir(folder), 0.0)

    def _upload_modified_files(
        self, folder: str, repo_id: str, before: dict[str, float], **options: Any
    ) -> None:
        new = sorted(set(os.listdir(folder)) - set(before))
        self.calls.append((type(self).__name__, repo_id, new, options))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        self.save_pretrained(options["folder"], max_shard_size="5GB")  # type: ignore[attr-defined]
        return f"sent to {repo_id}"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is asked of the hub's mixin."""
    monkeypatch.setattr(_Sender, "calls", [])
    hub = SimpleNamespace(PushToHubMixin=_Sender)
    monkeypatch.setitem(sys.modules, "windlass.hub", hub)  # type: ignore[arg-type]
    return _Sender.calls


def test_saved_config_is_sent_where_it_is_asked_for(sent: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    CLASSES["mapped"]().save_pretrained(folder, push_to_hub=True, token="t", private=True)
    assert sent == [
        ("create", "mine", {"token": "t", "private": True}),
        ("Mapped", "me/mine", ["config.json"], {"commit_message": None, "token": "t"}),
    ]


def test_config_is_pushed_by_way_of_a_folder(sent: list[Any], tmp_path: Path) -> None:
    assert CLASSES["mapped"](n_embd=3).push_to_hub("mine", folder=tmp_path) == "sent to mine"
    assert CLASSES["mapped"].from_pretrained(tmp_path).n_embd == 3
    assert sent == []
