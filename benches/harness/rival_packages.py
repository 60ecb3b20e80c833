"""The environment in which rivals run: which packages belong there, which are missing, and why."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = REPOSITORY / ".venv-rivals"
PYTHON = ENVIRONMENT / "bin" / "python"
OUTCOMES = ENVIRONMENT / "outcomes.json"
GROUP = "rivals"


def rival_requirements() -> dict[str, str]:
    """Return what `pyproject.toml` asks for, by name of package."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    requirements: list[str] = project["dependency-groups"][GROUP]
    return {requirement.partition("==")[0]: requirement for requirement in requirements}


@cache
def recorded_outcomes() -> dict[str, str]:
    """Return what became of each installation: an empty text, or why it failed."""
    if not OUTCOMES.is_file():
        return {}
    outcomes: dict[str, str] = json.loads(OUTCOMES.read_text())
    return outcomes


def why_missing(package: str) -> str | None:
    """Say why `package` cannot run here; None if it is installed."""
    outcome = recorded_outcomes().get(package)
    if outcome is None:
        return f"{package} is not installed: run make bench-rivals"
    return f"{package} could not be installed: {outcome}" if outcome else None
