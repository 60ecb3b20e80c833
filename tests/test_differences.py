"""The table of differences from transformers names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = (TESTS.parent / "docs" / "differences.md").read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ")]
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE)


def test_every_row_has_its_reason_and_its_test() -> None:
    rows = [row for row in ROWS if not row.startswith("| What |")]
    assert len(rows) > 20
    for row in rows:
        what, why, test = row.strip("|").split(" | ")
        assert what.strip()
        assert why.strip()
        assert re.fullmatch(r"`[\w/]+\.py::\w+` ?", test), row


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_named_test_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (TESTS / file).read_text()
