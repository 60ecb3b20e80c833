"""`verify`: is a checkpoint whole? Headers, index, and the checksums that a save stored."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from windlass import _rust
from windlass.errors import CheckpointError, CheckpointNotFound, ChecksumMismatch
from windlass.layout import find_by_pattern, find_safetensors
from windlass.opening import MOST_TRIES, identity, is_still
from windlass.options import check_options
from windlass.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from windlass.layout import CheckpointFile
    from windlass.types import PathLike, Progress

logger = logging.getLogger(__name__)

#: Metadata entry with the checksums; the engine writes it (`windlass_core::save::CHECKSUM_KEY`).
CHECKSUM_KEY = "windlass.crc32c"


class Finding(NamedTuple):
    """Something that is wrong with a checkpoint.

    Attributes:
        file: name of the file.
        tensor: name of the tensor, or None if it is about the whole file.
        expected: what should be there.
        found: what is there.
    """

    file: str
    tensor: str | None
    expected: str
    found: str


def verify(
    path: PathLike,
    *,
    filename_pattern: str | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> list[Finding]:
    """Check a checkpoint from end to end, and return what is wrong with it.

    Every header is checked against its file, the index against the headers, and every tensor
    against its checksum, where the save stored one (`checksums=True`). All tensors with checksums
    are read. Where none has one, a warning in the log says so.

    Args:
        path: a safetensors file, an index file, or a folder with either.
        filename_pattern: file name with `{suffix}`, as for `load_torch_model`; by default
            `model{suffix}.safetensors`, or else the only safetensors file of the folder.
        threads: reader threads, 8 by default.
        progress: see `windlass.progress.track`.

    Returns:
        Findings in the order of files and tensors; empty when all is well. What is replaced by a
        save meanwhile is checked again.

    Raises:
        CheckpointNotFound: there is nothing to check.
        ValueError: a pattern that is none, or one of pickles, of which nothing can be checked.

    Example:
        >>> verify(folder)
        []
    """
    check_options(threads=threads)
    for _ in range(MOST_TRIES - 1):
        try:
            file = _find(path, filename_pattern)
        except CheckpointNotFound:
            continue
        before = identity(file.path)
        findings = _verify(file, threads, progress)
        if not findings or is_still(file.path, before):
            return findings
    return _verify(_find(path, filename_pattern), threads, progress)


def _find(path: PathLike, filename_pattern: str | None) -> CheckpointFile:
    if os.path.isdir(path):
        return find_by_pattern(path, filename_pattern)
    if not os.path.lexists(path):
        message = f"`{os.fspath(path)}`: no such file or folder"
        raise CheckpointNotFound(message)
    return find_safetensors(path)


def _verify(file: CheckpointFile, threads: int | None, progress: Progress) -> list[Finding]:
    listed = _read_index(file)
    if isinstance(listed, Finding):
        return [listed]
    findings: list[Finding] = []
    tables: dict[str, _rust.Checkpoint] = {}
    for name in listed:
        table = _open(os.path.join(os.path.dirname(file.path), name), name)
        if isinstance(table, Finding):
            findings.append(table)
        else:
            tables[name] = table
    if file.is_index:
        findings.extend(_compare_index(listed, tables))
    if any(map(len, tables.values())) and not any(map(_has_checksums, tables.values())):
        _warn_unchecked(file.path)
    findings.extend(_check_all(tables, threads or 0, progress))
    return findings


def refuse_findings(findings: list[Finding]) -> None:
    """Raise if anything was found.

    Raises:
        ChecksumMismatch: with the first finding, and how many there are.
    """
    if findings:
        file, tensor, expected, found = findings[0]
        where = f", tensor `{tensor}`" if tensor else ""
        more = f" ({len(findings)} findings in all)" if len(findings) > 1 else ""
        message = f"`{file}`{where}: expected {expected}, found {found}{more}"
        raise ChecksumMismatch(message)


def _read_index(file: CheckpointFile) -> dict[str, set[str]] | Finding:
    """Return the names that the index lists, by file; a single file lists nothing."""
    name = os.path.basename(file.path)
    if not file.is_index:
        return {name: set()}
    try:
        weight_map, shards = _rust.read_index(file.path)
    except CheckpointError as error:
        return Finding(name, None, "an index", str(error))
    listed: dict[str, set[str]] = {shard: set() for shard in shards}
    for tensor, shard in weight_map.items():
        listed[shard].add(tensor)
    return listed


def _open(path: str, name: str) -> _rust.Checkpoint | Finding:
    try:
        return _rust.Checkpoint.open_file(path, strict_format=False)
    except CheckpointError as error:
        return Finding(name, None, "a whole, readable safetensors file", str(error))


def _compare_index(
    listed: dict[str, set[str]], tables: dict[str, _rust.Checkpoint]
) -> Iterator[Finding]:
    for file, table in tables.items():
        held = table.names()
        for tensor in sorted(listed[file].difference(held)):
            yield Finding(file, tensor, "the tensor, as the index says", "no such tensor")
        for tensor in held:
            if tensor not in listed[file]:
                yield Finding(file, tensor, "a name in the index", "a tensor that it does not list")


def _check_all(
    tables: dict[str, _rust.Checkpoint], threads: int, progress: Progress
) -> list[Finding]:
    with_sums = {file: table for file, table in tables.items() if _has_checksums(table)}
    sizes = {file: table.plan()[1] for file, table in with_sums.items()}
    findings: list[Finding] = []
    done = 0
    with track(sum(sizes.values()), progress, verb="verifying") as tell:
        for file, table in with_sums.items():
            try:
                findings.extend(_find_damage([file], table, threads, _shifted(tell, done)))
            except CheckpointError as error:
                findings.append(Finding(file, None, "readable bytes", str(error)))
            done += sizes[file]
    return findings


def _shifted(tell: Callable[[int], object] | None, base: int) -> Callable[[int], object] | None:
    return None if tell is None else lambda count: tell(base + count)


def _has_checksums(table: _rust.Checkpoint) -> bool:
    shards = range(len(table.shard_names()))
    return any(CHECKSUM_KEY in (table.shard_metadata(shard) or {}) for shard in shards)


def _warn_unchecked(path: str) -> None:
    logger.warning(
        "`%s`: no tensor has a checksum, so none of their values was verified; checksums are "
        "stored by a save with checksums=True",
        path,
    )


def refuse_damaged(table: _rust.Checkpoint, threads: int | None = None) -> None:
    """Raise for an opened checkpoint whose bytes are not those that its checksums are of.

    What is read of it later is the same files, or a `FileChanged`. Where there are no checksums, a
    warning in the log says so.

    Raises:
        ChecksumMismatch: says which tensor of which file.
        FileChanged, ReadFailed: they cannot be read.
    """
    if len(table) and not _has_checksums(table):
        _warn_unchecked(", ".join(table.shard_names()))
    refuse_findings(list(_find_damage(table.shard_names(), table, threads or 0, None)))


def _find_damage(
    files: list[str],
    table: _rust.Checkpoint,
    threads: int,
    tell: Callable[[int], object] | None,
) -> Iterator[Finding]:
    """Compare tensors with the checksums in their files; `files` are names of the shards."""
    stored: dict[int, dict[str, str]] = {}
    for shard, file in enumerate(files):
        text = (table.shard_metadata(shard) or {}).get(CHECKSUM_KEY)
        try:
            stored |= {} if text is None else {shard: dict(json.loads(text))}
        except (TypeError, ValueError, RecursionError):
            yield Finding(file, None, "checksums as a JSON map", repr(text and text[:80]))
    if not stored:
        return
    sums = table.crc32c(threads=threads, progress=tell)
    for tensor, info, value in zip(table.names(), table.infos(), sums, strict=True):
        shard, found = info[2], f"{value:08x}"
        if shard in stored and stored[shard].get(tensor) != found:
            wanted = stored[shard].get(tensor, "none stored")
            yield Finding(files[shard], tensor, f"CRC-32C {wanted}", f"CRC-32C {found}")
