"""The order of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from harness.schedule import plan_turns
from run import describe_run
from workloads import find_workload

if TYPE_CHECKING:
    from pathlib import Path

WORKLOAD = replace(find_workload("tinyllama-columns"), states=("cold",))


def order(rounds: range) -> list[str]:
    turns = plan_turns([WORKLOAD], ["cold"], rounds)
    return [f"{turn.round_number} {turn.competitor.key}" for turn in turns]


def test_odd_rounds_run_in_the_opposite_order() -> None:
    first, second = order(range(1)), order(range(1, 2))
    assert [one[2:] for one in second] == [one[2:] for one in first[::-1]]


def test_a_measurement_in_pieces_runs_as_in_one_piece() -> None:
    assert order(range(1)) + order(range(1, 3)) == order(range(3))


@pytest.mark.parametrize("name", ["tinyllama-columns", "stream", "tinyllama", "fresh"])
def test_nobody_always_comes_first_or_last(name: str) -> None:
    workload = find_workload(name)
    rounds = [
        [turn.competitor.key for turn in plan_turns([workload], ["warm"], range(n, n + 1))]
        for n in range(120)
    ]
    for competitor in rounds[0]:
        places = [order.index(competitor) for order in rounds]
        assert {*places} == {*range(len(rounds[0]))}


def test_command_of_a_run_names_no_folder(tmp_path: Path) -> None:
    words = ["--workloads", "a,b", "--results", "x/y", "--rounds", "3", "--work-folder=z"]
    described = describe_run(words, tmp_path)
    assert described["command"] == "python benches/run.py --workloads a,b --rounds 3"
