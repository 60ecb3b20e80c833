"""The examples run without a warning, and what they promise holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(script: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error", "HF_HUB_OFFLINE": "1"} | more,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("\nEvery check passed.\n")
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", ["bert_like.py", "gpt_like.py"])
def test_training_goes_on_where_it_was(script: str) -> None:
    said = _run(script)
    assert re.search(r"model-00001-of-0000\d\.safetensors", said)
    rows = re.findall(r"^ +(\d+) +(\d\.\d{6}) +(\d\.\d{6})$", said, re.MULTILINE)
    assert len(rows) == 5
    assert all(never_saved == loaded_back for _, never_saved, loaded_back in rows)
    assert "Equal to the last bit" in said


def test_one_checkpoint_serves_other_heads() -> None:
    assert "new are classifier.bias, classifier.weight" in _run("bert_like.py")


@pytest.mark.timeout(300)
def test_embeddings_of_a_real_model_equal_those_of_transformers() -> None:
    said = _run("minilm_encoder.py")
    found = re.search(r"largest difference: (\S+)", said)
    assert found is not None
    assert float(found[1]) <= 1e-6
    assert "missing keys: 0" in said


@pytest.mark.parametrize("script", ["bert_like.py", "gpt_like.py"])
def test_models_by_hand_need_no_transformers_and_no_hub(script: str) -> None:
    code = (
        "import sys, runpy\n"
        "sys.modules['transformers'] = sys.modules['huggingface_hub'] = None\n"
        "sys.modules['safetensors'] = None\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        f"runpy.run_path({str(EXAMPLES / script)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
