"""Bad input becomes its documented class, which names the file, the tensor and the numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.numpy
import safetensors.torch
import windlass
import windlass.numpy
from builders.badfiles import BAD, LOOSE
from builders.files import info, write_header, write_raw
from builders.sharded import SAFE_INDEX, write_index
from windlass import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _load_through_an_index(path: Path, **options: Any) -> object:
    import torch

    write_index(path.parent / SAFE_INDEX, {"x": path.name})
    model = torch.nn.Module()
    model.register_buffer("x", torch.zeros(2))
    return windlass.load_sharded_checkpoint(model, path.parent, strict=False, **options)


READERS: dict[str, Callable[..., object]] = {
    "load_file": windlass.load_file,
    "load_file owned": lambda path, **options: windlass.load_file(path, memory="owned", **options),
    "numpy.load_file": windlass.numpy.load_file,
    "safe_open": lambda path, **options: windlass.safe_open(path, "pt", **options),
    "Checkpoint": windlass.Checkpoint,
    "load_sharded_checkpoint": _load_through_an_index,
}
BUILTINS = {
    errors.CheckpointNotFound: (ValueError, FileNotFoundError),
    errors.ShardNotFound: (FileNotFoundError,),
    errors.ShardNotReadable: (PermissionError,),
    errors.NotARegularFile: (OSError,),
    errors.ReadFailed: (OSError,),
    errors.FileChanged: (OSError,),
    errors.InvalidHeader: (ValueError,),
    errors.EmptyFile: (ValueError,),
    errors.GitLfsPointer: (ValueError,),
    errors.TruncatedFile: (ValueError,),
    errors.InvalidPickle: (ValueError,),
    errors.InvalidIndex: (ValueError,),
    errors.UnsafeShardName: (ValueError,),
    errors.IndexMismatch: (RuntimeError,),
    errors.TensorNotFound: (KeyError,),
    errors.UnsupportedDtype: (TypeError,),
    errors.ModelError: (RuntimeError,),
    errors.IncompatibleKeys: (RuntimeError,),
    errors.MetaParameter: (RuntimeError,),
    errors.UnsupportedParameter: (RuntimeError,),
    errors.DestinationError: (ValueError,),
    errors.HubError: (OSError,),
    errors.RepositoryNotFound: (OSError,),
    errors.RevisionNotFound: (OSError,),
    errors.FileNotInRepository: (FileNotFoundError,),
    errors.NotCached: (FileNotFoundError,),
    errors.AccessDenied: (PermissionError,),
    errors.HubUnavailable: (ConnectionError,),
    errors.RateLimited: (ConnectionError,),
    errors.CorruptDownload: (OSError,),
    errors.InvalidRepositoryId: (OSError, ValueError),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", BAD)
def test_bad_file(tmp_path: Path, kind: str, reader: str) -> None:
    bad, path = BAD[kind], tmp_path / "broken.safetensors"
    if (kind, reader) == ("directory", "Checkpoint"):
        bad = bad._replace(error=errors.CheckpointNotFound)  # It takes folders, but not this one.
    bad.write(path)
    with pytest.raises(bad.error) as caught:
        READERS[reader](path)
    assert isinstance(caught.value, errors.CheckpointError)
    assert type(caught.value) is bad.error or bad.error is errors.InvalidHeader
    assert all(word in str(caught.value) for word in ("broken.safetensors", *bad.words))


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in {"fifo", "absent"}])
def test_safetensors_refuses_the_same_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken.safetensors"
    BAD[kind].write(path)
    with pytest.raises(Exception):  # noqa: B017, PT011 any: only the verdict is compared
        safetensors.torch.load_file(path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", LOOSE)
def test_loose_file_is_accepted_as_by_safetensors(tmp_path: Path, kind: str, reader: str) -> None:
    header, data, _ = LOOSE[kind]
    path = write_raw(tmp_path / "loose.safetensors", header, data)
    assert list(safetensors.torch.load_file(path)) == ["x"]
    READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", LOOSE)
def test_loose_file_is_refused_by_strict_format(tmp_path: Path, kind: str, reader: str) -> None:
    header, data, word = LOOSE[kind]
    path = write_raw(tmp_path / "loose.safetensors", header, data)
    with pytest.raises(errors.InvalidHeader) as caught:
        READERS[reader](path, strict_format=True)
    assert all(part in str(caught.value) for part in ("loose.safetensors", word))


@pytest.mark.parametrize("reader", READERS)
def test_proper_file_passes_strict_format(tmp_path: Path, reader: str) -> None:
    header = {"__metadata__": {"format": "pt"}, "x": info("F32", [2], 0, 8)}
    path = write_header(tmp_path / "good.safetensors", header, bytes(8))
    READERS[reader](path, strict_format=True)


ACCEPTED: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"{}", b""),
    "metadata null": (b'{"__metadata__":null}', b""),
    "an entry as a list": (b'{"x":["U8",[1],[0,1]]}', b"0"),
    "an empty name": (b'{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"0"),
    "an empty tensor at the end": (
        (
            b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"e":{"dtype":"F64","shape":[0],"data_offsets":[1,1]}}'
        ),
        b"0",
    ),
    "an escaped name": (b'{"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"0"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_odd_but_valid_file_is_read_as_by_safetensors(tmp_path: Path, kind: str) -> None:
    path = write_raw(tmp_path / "a", *ACCEPTED[kind])
    ours, theirs = windlass.numpy.load_file(path), safetensors.numpy.load_file(path)
    assert {n: a.tobytes() for n, a in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}


FORBIDDEN = """
import os, sys, windlass
from windlass import errors
os.setgid(65534), os.setuid(65534)
try:
    windlass.load_file(sys.argv[1])
except errors.ShardNotReadable as error:
    print(isinstance(error, PermissionError), error)
"""


def test_file_without_permission_is_its_own_error(tmp_path: Path) -> None:
    """In a child, which gives up root's right to read everything."""
    import torch  # noqa: F401 its files are readable to all, its caches already exist

    path = write_header(tmp_path / "secret.safetensors", {})
    path.chmod(0)
    code = FORBIDDEN if os.getuid() == 0 else FORBIDDEN.replace("os.setgid", "0 and os.setgid")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    command = [
        sys.executable,
        "-c",
        code.replace("import os", "import torch, windlass.torch, os", 1),
        path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("True"), done.stderr
    assert "secret.safetensors" in done.stdout


def test_every_error_is_documented_and_exported() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert sorted(defined) == errors.__all__
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__
        assert getattr(errors, name).__doc__


@pytest.mark.parametrize("error", BUILTINS, ids=lambda error: error.__name__)
def test_error_is_ours_and_the_builtin_that_fits(error: type[Exception]) -> None:
    assert issubclass(error, errors.WindlassError)
    assert all(issubclass(error, builtin) for builtin in BUILTINS[error])


@pytest.mark.parametrize("error", BUILTINS, ids=lambda error: error.__name__)
def test_error_text_is_its_message(error: type[Exception]) -> None:
    assert str(error("file `a`: bad")) == "file `a`: bad"


def test_incompatible_keys_are_lists_also_when_not_given() -> None:
    error = errors.IncompatibleKeys("none")
    assert (error.missing_keys, error.unexpected_keys, error.mismatched_keys) == ([], [], [])
