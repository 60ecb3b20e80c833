"""The order of runs: rounds of all competitors, turned round every time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from definitions import COLD, WARM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from definitions import Competitor, Workload


@dataclass(frozen=True)
class Turn:
    """One process to run."""

    workload: Workload
    competitor: Competitor
    cache: str
    round_number: int


def plan_turns(
    workloads: Iterable[Workload],
    states: Collection[str],
    rounds: range,
    without: Collection[str] = (),
) -> Iterator[Turn]:
    """Yield turns A B C, in odd rounds C B A, so that nobody always follows the same neighbour.

    Within a round all competitors meet the same machine, or as nearly as can be had; ratios are
    therefore taken within a round.
    """
    for workload in workloads:
        entrants = [entrant for entrant in workload.competitors if entrant.key not in without]
        for round_number in rounds:
            order = entrants if round_number % 2 == 0 else entrants[::-1]
            for state in workload.states:
                for competitor in order:
                    if _takes_part(workload, competitor, state, states, round_number):
                        yield Turn(workload, competitor, state, round_number)


def _takes_part(
    workload: Workload,
    competitor: Competitor,
    state: str,
    states: Collection[str],
    round_number: int,
) -> bool:
    asked = state in states or state not in {COLD, WARM}
    own_states = competitor.states or workload.states
    rounds_left = competitor.max_rounds is None or round_number < competitor.max_rounds
    return asked and state in own_states and rounds_left
