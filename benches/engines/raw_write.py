"""The raw limit of saving: runs `raw_write.c` over the checkpoint's own files and compares them.

The variant `direct` writes past the page cache.
"""

from __future__ import annotations

import filecmp
import json
import subprocess

from checkpoints.families import build_layout
from harness.raw_programs import binary_beside
from harness.target_folder import empty_target

from engines.proof import ProofError
from engines.protocol import emit, parse_arguments, ready_to_write
from engines.save_tasks import fresh_bytes, ready_target, saving_of


def main() -> None:
    """Ready the machine as every engine does, then hand over to the program in C."""
    arguments = parse_arguments()
    layout = build_layout(arguments.workload.layout)
    files = sorted(arguments.folder.glob("*.safetensors"))
    target = ready_target(arguments, layout)
    touched = ready_to_write(arguments, fresh_bytes(layout))
    mode = "direct" if arguments.variant == "direct" else "plain"
    settings = (arguments.threads, mode, int(saving_of(arguments).durable), touched)
    binary = binary_beside(arguments.folder, "raw_write")
    command = [*map(str, (binary, *settings, target, *files))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    measured: dict[str, object] = json.loads(answer.stdout)
    for file in files:
        if not filecmp.cmp(file, target / file.name, shallow=False):
            message = f"{file.name} differs from its source"
            raise ProofError(message)
    empty_target(arguments.folder)
    emit(**measured, touched_and_freed_bytes=touched, proof="every file equal")


if __name__ == "__main__":
    main()
