"""The order of runs: rounds of all competitors, each in another order. Pure."""

from __future__ import annotations

import random
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
    """Yield turns in rounds, each odd one in the order of the one before turned round.

    From pair to pair of rounds the order is shuffled, so that nobody always follows the same
    neighbour, comes first or comes last: who comes first may find the machine asleep.

    Within a round all competitors meet the same machine, or as nearly as can be had; ratios are
    therefore taken within a round.
    """
    for workload in workloads:
        entrants = [entrant for entrant in workload.competitors if entrant.key not in without]
        for round_number in rounds:
            order = _order(entrants, round_number)
            for state in workload.states:
                for competitor in order:
                    if _takes_part(workload, competitor, state, states, round_number):
                        yield Turn(workload, competitor, state, round_number)


def _order(entrants: list[Competitor], round_number: int) -> list[Competitor]:
    pair, is_second = divmod(round_number, 2)
    # The same in every process: a measurement may be done in pieces.
    order = random.Random(pair).sample(entrants, len(entrants))  # noqa: S311
    return order[::-1] if is_second else order


def _takes_part(
    workload: Workload,
    competitor: Competitor,
    state: str,
    states: Collection[str],
    round_number: int,
) -> bool:
    asked = state in states or state not in {COLD, WARM}
    rounds_left = competitor.max_rounds is None or round_number < competitor.max_rounds
    return asked and competitor in workload.entrants(state) and rounds_left
