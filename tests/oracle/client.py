"""The tests' side of the oracle: starts its process, asks, and compares outcomes."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TESTS = Path(__file__).parents[1]
PYTHON = TESTS.parent / ".venv-oracle" / "bin" / "python"


@dataclass(frozen=True)
class Answer:
    """What 4.46.3 did with one case.

    Attributes:
        error: names of the exception's classes, the exact one first; empty where there was none.
        warnings: category and text of each warning.
        logs: level and text of each line it logged, INFO and above.
    """

    result: Any = None
    error: tuple[str, ...] = ()
    message: str = ""
    warnings: list[list[str]] = field(default_factory=list)
    logs: list[list[str]] = field(default_factory=list)

    @property
    def value(self) -> Any:
        """What was returned; an exception fails the test."""
        assert not self.error, f"the oracle raised {self.error[0]}: {self.message}"
        return self.result

    @property
    def kind(self) -> type[BaseException]:
        """The nearest builtin class of what it raised: ours has to be one too."""
        assert self.error, f"the oracle raised nothing, and returned {self.result!r}"
        return next(getattr(builtins, name) for name in self.error if hasattr(builtins, name))


class Oracle:
    """A process with transformers 4.46.3; it starts with the first question.

    Args:
        environment: more environment variables for it, where what is asked depends on some.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: str, cases: Iterable[Any]) -> list[Answer]:
        """Return the answer to each case of the question `topic.name`."""
        batch = {"question": question, "cases": [to_json(case) for case in cases]}
        answers = json.loads(self._exchange(json.dumps(batch)))
        return [_read(answer) for answer in answers]

    def ask_one(self, question: str, case: Any) -> Answer:
        """Return the answer to one case."""
        [answer] = self.ask(question, [case])
        return answer

    def close(self) -> None:
        """End the process, if it was started."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._process = None

    def _exchange(self, line: str) -> str:
        if self._process is None:
            self._process = _start(self._environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline()
        assert reply, "the oracle's process ended; its last words are above"
        return reply


def assert_same(
    answer: Answer, ours: Callable[[], Any], same: Callable[[Any, Any], bool] | None = None
) -> None:
    """Check that ours returns what the oracle returned, or raises an error of its kind."""
    try:
        value = ours()
    except Exception as error:
        if not answer.error or not isinstance(error, answer.kind):
            raise
        return
    assert not answer.error, f"ours returned {value!r}, the oracle raised {answer.error[0]}"
    assert same(value, answer.value) if same else value == answer.value


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    assert PYTHON.exists(), "there is no oracle here: `make oracle` builds it"
    settings = {"PYTHONPATH": str(TESTS), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [PYTHON, "-m", "oracle.serve"],
        env=os.environ | settings | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _read(answer: dict[str, Any]) -> Answer:
    return Answer(
        result=from_json(answer.get("value")),
        error=tuple(answer.get("error", ())),
        message=answer.get("message", ""),
        warnings=answer["warnings"],
        logs=answer["logs"],
    )
