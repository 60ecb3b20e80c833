"""`paused_gc`: no garbage collection while many objects are made that all stay alive.

Each full collection walks every object there is, so making n of them costs more than n: 50,000
tensors took 2.4 times as long without this (see benches/).
"""

from __future__ import annotations

from windlass import _rust


def paused_gc() -> _rust.PausedGc:
    """Pause the collector, unless somebody else has; Ctrl-C does not leave it paused."""
    return _rust.PausedGc()
