"""One copy of the model in memory: `clone` of every tensor, as little as a snapshot can cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.protocol import parse_arguments
from engines.save_tasks import run_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.save_tasks import SaveJob, StateDict


def take(job: SaveJob) -> Callable[[], StateDict]:
    """Copy every tensor."""
    copies = {name: tensor.clone() for name, tensor in job.state_dict.items()}
    return lambda: copies


if __name__ == "__main__":
    run_snapshot(take, parse_arguments())
