"""The demo runs, says what it promises, and fails with a sentence where it cannot run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL_BYTES = 100 * 10**6


# The demo with a loader that gets one bit wrong.
WRONG_BIT = """
import sys
sys.path.insert(0, sys.argv.pop())
import demo, torch, windlass
load = windlass.load_sharded_checkpoint

def load_wrongly(model, *arguments, **options):
    result = load(model, *arguments, **options)
    with torch.no_grad():
        model.get_parameter("pooler.dense.bias")[7:8].view(torch.int32).bitwise_xor_(1)
    return result

windlass.load_sharded_checkpoint = load_wrongly
sys.exit(demo.main())
"""


def _run(script: str, *arguments: str, flags: tuple[str, ...] = ()) -> tuple[int, str, str]:
    return _python(*flags, str(EXAMPLES / script), *arguments)


def _python(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("generated")
    for name in ("generated", "terminal"):
        sys.modules.pop(name, None)


@pytest.mark.timeout(300)  # Imports torch and transformers, and compares four loaders.
def test_demo_passes_every_check_without_a_warning_or_noise() -> None:
    status, words, noise = _run("demo.py")
    assert (status, noise) == (0, "")
    assert "model-00001-of-00004.safetensors" in words
    assert "missing keys:    none" in words
    assert "All 8 are nearest to the sentence about the same thing." in words
    assert "Yes: 103 tensors, 90,852,864 bytes compared, no bit differs." in words
    assert words.count(" ms ") + words.count(" s ") >= 12
    for title in ("windlass.load_sharded_checkpoint", "transformers rule", "safetensors, into"):
        assert f"\n   {title}" in words
    killed = words.partition("(SIGKILL)")[2]
    assert killed.count("the original") + killed.count(" changed   ") >= 5
    assert "all weights are of one save, each time" in killed
    assert words.endswith("\nEvery check passed.\n")


@pytest.mark.timeout(300)
def test_one_wrong_bit_fails_the_demo() -> None:
    status, words, noise = _python("-c", WRONG_BIT, str(EXAMPLES))
    assert status == 1
    assert noise == "\nThe demo failed: the weight 'pooler.dense.bias' differs from the original\n"
    assert "Every check passed" not in words


def test_a_missing_package_is_named_with_the_way_to_get_it() -> None:
    status, _, noise = _run("demo.py", flags=("-S",))  # Without site-packages.
    assert status == 1
    assert noise == (
        "\nThe demo failed: the package `tqdm` is not installed; `make demo` installs it\n"
    )


@pytest.mark.parametrize(
    ("size", "reason"),
    [("large", "expected a size like 500MB or 2GB"), ("1MB", "expected at least 100MB")],
)
def test_a_size_that_makes_no_sense_is_refused_at_once(size: str, reason: str) -> None:
    status, words, noise = _run("demo.py", "--size", size)
    assert (status, words) == (2, "")
    assert reason in noise


@pytest.mark.parametrize("size", [SMALL_BYTES, 345_678_901, 2 * 10**9, 5 * 2**30])
def test_layout_has_the_size_that_was_asked_for(generated: Any, size: int) -> None:
    total = generated.bytes_of(generated.layout(size))
    assert size - 2 * generated.ROW_BYTES < total <= size


@pytest.mark.timeout(300)
def test_every_competitor_loads_the_generated_bytes_in_a_fresh_process(
    generated: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoint"
    checksum = generated.write_checkpoint(SMALL_BYTES, folder)
    assert "in 5 shards" in capsys.readouterr().out
    for competitor in ("windlass", "rule", "safetensors"):
        status, words, noise = _run("contest.py", competitor, str(folder), str(SMALL_BYTES))
        assert (status, noise) == (0, "")
        assert json.loads(words)["checksum"] == checksum
