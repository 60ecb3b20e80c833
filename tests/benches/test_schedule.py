"""The order of runs."""

from __future__ import annotations

from dataclasses import replace

from harness.schedule import plan_turns
from workloads import find_workload

WORKLOAD = replace(find_workload("tinyllama-columns"), states=("cold",))


def order(rounds: range) -> list[str]:
    turns = plan_turns([WORKLOAD], ["cold"], rounds)
    return [f"{turn.round_number} {turn.competitor.key}" for turn in turns]


def test_odd_rounds_run_in_the_opposite_order() -> None:
    assert order(range(2)) == ["0 windlass", "0 safetensors", "1 safetensors", "1 windlass"]


def test_a_measurement_in_pieces_runs_as_in_one_piece() -> None:
    assert order(range(1)) + order(range(1, 3)) == order(range(3))
