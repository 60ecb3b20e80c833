"""Goals that compare times: the fastest rival of the same rounds decides."""

from __future__ import annotations

from typing import Any

from reporting.ratio_goals import READ_GOALS, RatioGoal
from reporting.summary import Section, summarise
from reporting.tables import TIMES
from reporting.targets import judge, unmeasured_goals

GOAL = RatioGoal("loading", "the best", "load", "warm", ("slow", "fast"), 2.0)


def sections(**seconds: float | None) -> dict[tuple[str, str], Section]:
    records: list[dict[str, Any]] = [
        {
            "kind": "run",
            "workload": "load",
            "workload_title": "load",
            "task": "fill",
            "baseline": "ours",
            "competitor": name,
            "title": name,
            "cache": "warm",
            "round": 0,
        }
        | ({"error": "broken"} if value is None else {"seconds": value})
        for name, value in seconds.items()
    ]
    return {(section.workload, section.cache): section for section in summarise(records)}


def test_the_fastest_rival_decides_and_is_named() -> None:
    assert GOAL.judged(sections(ours=1.0, slow=9.0, fast=1.5)) == (f"1.50{TIMES} (fast)", False)
    assert GOAL.judged(sections(ours=1.0, slow=9.0, fast=2.0)) == (f"2.00{TIMES} (fast)", True)


def test_a_rival_that_failed_decides_nothing() -> None:
    assert GOAL.judged(sections(ours=1.0, slow=9.0, fast=None)) == (f"9.00{TIMES} (slow)", True)


def test_without_a_measurement_there_is_no_verdict() -> None:
    assert GOAL.judged({}) is None
    assert GOAL.judged(sections(ours=1.0, other=2.0)) is None
    assert GOAL.judged(sections(ours=None, fast=2.0)) is None


def test_the_goals_of_reading_are_judged_with_all_others() -> None:
    records = [
        {
            "kind": "run",
            "workload": "fresh",
            "workload_title": "fresh",
            "task": "fresh",
            "baseline": "windlass",
            "competitor": name,
            "title": name,
            "cache": "cold",
            "round": 0,
            "seconds": seconds,
        }
        for name, seconds in (("windlass", 1.0), ("runai", 1.4), ("safetensors-pread", 3.0))
    ]
    (verdict,) = judge(summarise(records))
    assert (verdict.measured, verdict.met) == (f"1.40{TIMES} (runai)", False)


def test_goals_without_a_measurement_are_named() -> None:
    assert len(unmeasured_goals([])) == len(READ_GOALS)
    assert READ_GOALS[0].text() in unmeasured_goals([])


def test_both_ways_to_have_weights_are_judged_against_transformers() -> None:
    seconds = {"windlass": 0.1, "windlass-owned": 0.4, "transformers-5": 0.3}
    records = [
        {
            "kind": "run",
            "workload": "pretrained-tinyllama",
            "workload_title": "load",
            "task": "pretrained",
            "baseline": "windlass",
            "competitor": name,
            "title": name,
            "cache": "warm",
            "round": 0,
            "seconds": value,
        }
        for name, value in seconds.items()
    ]
    verdicts = {v.goal: v.met for v in judge(summarise(records)) if "warm" in v.goal}
    assert verdicts == {
        f"from_pretrained, 2.2 GB, warm: at least 1.5{TIMES} transformers 5": True,
        f'from_pretrained(memory="owned"), 2.2 GB, warm: at least 1.5{TIMES} transformers 5': False,
    }
