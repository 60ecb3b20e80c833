"""The oracle's process: reads one batch of cases a line, writes one line of answers.

A line in is `{"question": "topic.name", "cases": [...]}`. A line out is a list with, for each case,
`value` or `error` (names of the exception's classes) and `message`, and what was warned and logged.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from transformers.utils import logging as transformers_logging

from oracle.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable


class Recorder(logging.Handler):
    """Keeps what transformers logs while a case is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append([record.levelname, record.getMessage()])


def answer(function: Callable[[Any], Any], case: Any, recorder: Recorder) -> dict[str, Any]:
    recorder.records = []
    transformers_logging.warning_once.cache_clear()
    transformers_logging.info_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = {"value": to_json(function(from_json(case)))}
        except Exception as error:  # noqa: BLE001  (the exception is the answer)
            kinds = [kind.__name__ for kind in type(error).__mro__]
            result = {"error": kinds, "message": str(error)}
    result["warnings"] = [[item.category.__name__, str(item.message)] for item in caught]
    result["logs"] = recorder.records
    return result


def main() -> None:
    recorder = Recorder()
    transformers_logging.disable_default_handler()
    transformers_logging.add_handler(recorder)
    transformers_logging.set_verbosity_info()
    # Whatever else prints goes to stderr: stdout is for answers.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        batch = json.loads(line)
        topic, _, name = batch["question"].rpartition(".")
        function = getattr(importlib.import_module(f"oracle.questions.{topic}"), name)
        answers = [answer(function, case, recorder) for case in batch["cases"]]
        print(json.dumps(answers), file=out, flush=True)


if __name__ == "__main__":
    main()
