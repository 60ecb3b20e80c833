"""Installs the rivals into an environment of their own, one by one, and records what failed.

python benches/install_rivals.py

The environment gets the Python, torch and numpy of the interpreter that runs this. A rival that
cannot be installed hinders nobody else; the benchmarks then report it by name with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

from harness.rival_packages import ENVIRONMENT, OUTCOMES, PYTHON, rival_requirements

SHARED = ("torch", "numpy", "safetensors")  # The same versions as windlass is measured with.


def main() -> int:
    """Make the environment and install; return 1 if a rival is missing."""
    same = [f"{package}=={version(package)}" for package in SHARED]
    run_uv("venv", "--quiet", "--allow-existing", "--python", sys.executable, str(ENVIRONMENT))
    outcomes = {}
    for package, requirement in rival_requirements().items():
        outcomes[package] = install([*same, requirement])
        say(f"{requirement}: {outcomes[package] or 'installed'}")
    OUTCOMES.write_text(json.dumps(outcomes, indent=2) + "\n")
    return int(any(outcomes.values()))


def install(requirements: list[str]) -> str:
    """Install, and return an empty text, or why that failed."""
    answer = run_uv("pip", "install", "--quiet", "--python", str(PYTHON), *requirements)
    if answer.returncode == 0:
        return ""
    words = " ".join(answer.stderr.encode("ascii", "ignore").decode().split())  # No drawn arrows.
    return words or f"exit {answer.returncode}"


def run_uv(*words: str) -> subprocess.CompletedProcess[str]:
    """Run uv of this interpreter's environment."""
    command = [sys.executable, "-m", "uv", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def say(text: str) -> None:
    """Progress goes to stderr."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
