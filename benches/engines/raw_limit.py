"""The raw limit: runs `raw_limit.c` over the data of all shards and checks its checksum.

The variant `direct` reads past the page cache, `widen` makes float32 of bfloat16 with a thread for
each processor, `fresh` reads into memory that has to be made, `threads-N` with so many threads.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import numpy as np
from checkpoints.safetensors_format import read_header
from harness.raw_programs import binary_beside
from workloads import files_read

from engines.proof import ProofError
from engines.protocol import emit, parse_arguments, ready_machine

if TYPE_CHECKING:
    from pathlib import Path

BLOCK_BYTES = 32 << 20
WORD_MASK = 2**64 - 1


def checksum_of_data(path: Path, offset: int, num_bytes: int) -> int:
    """Sum the data of one file as 64-bit words, modulo 2**64."""
    total = 0
    with path.open("rb") as file:
        file.seek(offset)
        while num_bytes > 0:
            block = file.read(min(num_bytes, BLOCK_BYTES))
            num_bytes -= len(block)
            total += int(np.frombuffer(block, dtype=np.uint64).sum(dtype=np.uint64))
    return total & WORD_MASK


def main() -> None:
    """Ready the machine as every engine does, then hand over to the program in C."""
    arguments = parse_arguments()
    paths = sorted(arguments.folder.glob("*.safetensors"))
    headers = {path: read_header(path) for path in paths}
    _, _, threads = arguments.variant.partition("threads-")
    mode = arguments.variant if arguments.variant in ("direct", "widen", "fresh") else "plain"
    if mode == "widen":
        threads = str(os.cpu_count() or 1)  # Nobody waits for a disk.
    binary = binary_beside(arguments.folder, "raw_limit")
    command = [*map(str, (binary, threads or arguments.threads, mode))]
    for path, header in headers.items():
        command += [str(path), str(header.data_offset), str(header.data_bytes)]
    files = files_read(arguments.workload, arguments.folder, ".safetensors")
    fraction, touched = ready_machine(arguments, files)
    answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    measured: dict[str, object] = json.loads(answer.stdout)
    expected = sum(
        checksum_of_data(path, header.data_offset, header.data_bytes)
        for path, header in headers.items()
    )
    if measured["checksum"] != expected & WORD_MASK:
        message = "the bytes in memory differ from the files"
        raise ProofError(message)
    emit(
        **measured,
        resident_fraction=fraction,
        touched_and_freed_bytes=touched,
        proof="checksum of all data equal",
    )


if __name__ == "__main__":
    main()
