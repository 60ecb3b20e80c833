"""File-name rules: which file of a folder is the checkpoint, and what shards are called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from windlass.errors import CheckpointNotFound, InvalidPickle, ShardNotReadable

if TYPE_CHECKING:
    from windlass.types import PathLike

SAFE_FILE = "model.safetensors"
SAFE_INDEX = "model.safetensors.index.json"
SAFE_PATTERN = "model{suffix}.safetensors"
PICKLE_PATTERN = "pytorch_model{suffix}.bin"
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

_PREFER_SAFE = (SAFE_INDEX, SAFE_FILE, PICKLE_INDEX, PICKLE_FILE)
_PREFER_PICKLE = (PICKLE_INDEX, PICKLE_FILE, SAFE_INDEX, SAFE_FILE)


class CheckpointFile(NamedTuple):
    """The file that says what a checkpoint holds.

    Attributes:
        path: the file.
        is_index: whether it is an index of shards, or holds the weights itself.
        is_safetensors: whether weights are safetensors, or pickles of torch.
    """

    path: str
    is_index: bool
    is_safetensors: bool


def find_checkpoint(path: PathLike, *, prefer_safe: bool = True) -> CheckpointFile:
    """Choose the file to load from a folder, or take the file that `path` names.

    Safetensors go before pickles unless `prefer_safe` is false, and among those an index before a
    single file: for indexes this is the rule of transformers 4.46's `load_sharded_checkpoint`,
    which knows no single files.

    Raises:
        CheckpointNotFound: there is no such folder, or none of the files is in it.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isdir(path):
        return classify(path)
    for name in _PREFER_SAFE if prefer_safe else _PREFER_PICKLE:
        found = os.path.join(path, name)
        if is_there(found):
            return classify(found)
    raise CheckpointNotFound(_not_found(path))


def find_safetensors(path: PathLike) -> CheckpointFile:
    """Choose the safetensors index or file of a folder, or take the file that `path` names.

    Raises:
        CheckpointNotFound: the folder holds neither.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        return CheckpointFile(path, is_index=path.endswith(".json"), is_safetensors=True)
    for name in (SAFE_INDEX, SAFE_FILE):
        found = os.path.join(path, name)
        if is_there(found):
            return CheckpointFile(found, is_index=name == SAFE_INDEX, is_safetensors=True)
    message = f"Can't find a checkpoint index ({SAFE_INDEX}) or {SAFE_FILE} in {path}."
    raise CheckpointNotFound(message)


def name_shards(pattern: str, count: int) -> list[str]:
    """Return the file names of a checkpoint of `count` shards, in order; one has no number.

    Raises:
        ValueError: the pattern has no `{suffix}` to tell shards apart by, or other fields.
    """
    _check_pattern(pattern)
    if count == 1:
        return [pattern.format(suffix="")]
    return [pattern.format(suffix=shard_suffix(n, count)) for n in range(1, count + 1)]


def shard_suffix(number: int, count: int) -> str:
    """Return what tells shard `number` (from 1) of `count` from the others."""
    return f"-{number:05d}-of-{count:05d}"


def add_variant(weights_name: str, variant: str | None = None) -> str:
    """Return the name of a file's variant, as transformers spells it: before the last dot.

    Example:
        >>> add_variant("model.safetensors", "fp16"), add_variant("model.safetensors")
        ('model.fp16.safetensors', 'model.safetensors')
        >>> add_variant("model.safetensors.index.json", "fp16")
        'model.safetensors.index.fp16.json'
    """
    if variant is None:
        return weights_name
    *stem, ending = weights_name.split(".")
    return ".".join([*stem, variant, ending])


def _check_pattern(pattern: str) -> None:
    try:
        tells_apart = pattern.format(suffix="1") != pattern.format(suffix="2")
    except (AttributeError, LookupError, ValueError):
        tells_apart = False
    if not tells_apart:
        message = (
            "filename_pattern should have the field {suffix} and no other, as in "
            f"{SAFE_PATTERN!r}; found {pattern!r}"
        )
        raise ValueError(message)


def is_there(path: str) -> bool:
    """Whether a name is in its folder, be it a dangling link; a closed folder is an error."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        message = f"`{path}`: permission denied"
        raise ShardNotReadable(message) from error
    return True


def looks_local(path: str) -> bool:
    """Whether a text can be a path only: a repository of the hub is `name` or `owner/name`."""
    return os.path.isabs(path) or path.startswith((".", "~")) or path.count("/") > 1 or not path


def classify(path: str) -> CheckpointFile:
    """Tell index from weights and safetensors from pickles, by the name of a file."""
    is_index = path.endswith(".json")
    is_pickle = path.partition(".index.")[0].endswith((".bin", ".pt", ".pth"))
    return CheckpointFile(path, is_index=is_index, is_safetensors=not is_pickle)


def _not_found(path: str) -> str:
    found = "" if os.path.isdir(path) else " (there is no such folder)"
    return (
        f"Can't find a checkpoint index ({PICKLE_INDEX} or {SAFE_INDEX}), "
        f"{SAFE_FILE} or {PICKLE_FILE} in {path}{found}."
    )


class Family(NamedTuple):
    """The names of one checkpoint's files.

    Attributes:
        prefix: what every weights file begins with.
        suffix: what every weights file ends with.
        index_name: name of the index.
        foreign_index_name: name that transformers gives the index of a variant, if this is one.
    """

    prefix: str
    suffix: str
    index_name: str
    foreign_index_name: str | None = None

    @property
    def single(self) -> str:
        """Name of the file that holds everything."""
        return self.prefix + self.suffix


def pattern_family(filename_pattern: str) -> Family:
    """Return the names that a pattern such as `model{suffix}.safetensors` stands for.

    Raises:
        ValueError: a pattern without `{suffix}`, or that leaves its folder.
    """
    name_shards(filename_pattern, 1)
    if filename_pattern.count("{suffix}") != 1:
        message = f"filename_pattern should have {{suffix}} once, found {filename_pattern!r}"
        raise ValueError(message)
    prefix, _, suffix = filename_pattern.partition("{suffix}")
    leaves = os.path.basename(filename_pattern) != filename_pattern
    if leaves or prefix + suffix in ("", os.curdir, os.pardir):
        message = f"filename_pattern should name files of one folder, found {filename_pattern!r}"
        raise ValueError(message)
    return Family(prefix, suffix, f"{prefix}{suffix}.index.json", _foreign_index(prefix, suffix))


def _foreign_index(prefix: str, suffix: str) -> str | None:
    """Return what transformers calls the index of `model.fp16` and `.safetensors`.

    It puts the variant before the last dot of every name, that of the index too.
    """
    stem, _, variant = prefix.partition(".")
    if not stem or not variant or suffix.rfind(".") != 0:
        return None
    return f"{stem}{suffix}.index.{variant}.json"


def find_by_pattern(
    path: PathLike, filename_pattern: str | None = None, *, safe: bool = True
) -> CheckpointFile:
    """Choose the file to load as the hub does: index, then single file, then the only one there.

    The index of a variant is also found by the name that transformers gives it.

    Raises:
        CheckpointNotFound: there is none of them.
        InvalidPickle: `safe`, and what is there is a pickle.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isdir(path):
        return _classify_as_hub(path, safe=safe)
    default = (SAFE_PATTERN,) if safe else (SAFE_PATTERN, PICKLE_PATTERN)
    for pattern in (filename_pattern,) if filename_pattern else default:
        family = pattern_family(pattern)
        for name in (family.index_name, family.foreign_index_name, family.single):
            if name is not None and is_there(found := os.path.join(path, name)):
                return _classify_as_hub(found, safe=safe)
    names = _list(path) if filename_pattern is None else []
    for ending in (".safetensors",) if safe else (".safetensors", ".bin"):
        only = [name for name in names if name.endswith(ending)]
        if len(only) == 1:
            return classify(os.path.join(path, only[0]))
    raise CheckpointNotFound(_not_found(path))


def _list(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _classify_as_hub(path: str, *, safe: bool) -> CheckpointFile:
    """Tell the format: with `safe=False`, what is not called safetensors is a pickle."""
    file = classify(path)
    if not safe:
        name = path.partition(".index.")[0].lower()
        return file._replace(is_safetensors=name.endswith(".safetensors"))
    if not file.is_safetensors:
        message = (
            f"`{file.path}`: expected safetensors, found a pickle of torch; safe=False loads it"
        )
        raise InvalidPickle(message)
    return file


def taken_before(folder: str, family: Family) -> str | None:
    """Return the file that readers take before the pickles of a family, if it is in the folder."""
    stem = PICKLE_FILE.removesuffix(".bin")
    if not family.single.startswith(stem) or not family.single.endswith(".bin"):
        return None
    safe = pattern_family(f"model{family.prefix.removeprefix(stem)}{{suffix}}.safetensors")
    names = (safe.single, safe.index_name, safe.foreign_index_name)
    return next((name for name in names if name and is_there(os.path.join(folder, name))), None)
