"""Progress of long work: silence, a bar, or a callback. The only place that knows tqdm."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from windlass.types import Progress

#: A bar appears once work has taken this long, in seconds.
DELAY = 1.0


@contextmanager
def track(
    total: int, progress: Progress, *, verb: str = "reading"
) -> Iterator[Callable[[int], object] | None]:
    """Give a function to call with the number of bytes done so far, out of `total`.

    `progress` is a callable `(done, total)`; `True` for a bar; `False` for silence; or `None` for
    a bar where one can be seen: tqdm is installed, standard error is a terminal, and the
    environment variable `WINDLASS_NO_PROGRESS` is not set. A bar appears only after a second, with
    `verb` beside it.

    Raises:
        TypeError: `progress` is none of these.
    """
    check_progress(progress)
    if callable(progress):
        yield lambda done: progress(done, total)
    elif progress is False or (progress is None and "WINDLASS_NO_PROGRESS" in os.environ):
        yield None
    else:
        bar = _Bar(total, verb, forced=progress is True)
        try:
            yield bar.update
        finally:
            bar.close()


def check_progress(progress: Progress) -> None:
    """Raise `TypeError` for what tells nobody anything."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        message = f"progress should be a bool, None or a function, found {progress!r}"
        raise TypeError(message)


class _Bar:
    """A tqdm bar that does not exist, nor import tqdm, before `DELAY` has passed."""

    def __init__(self, total: int, verb: str, *, forced: bool) -> None:
        if forced and find_spec("tqdm") is None:
            message = "progress=True needs tqdm: pip install 'windlass[progress]'"
            raise ModuleNotFoundError(message)
        self._total, self._verb, self._forced = total, verb, forced
        self._start = time.monotonic()
        self._bar: Any = None

    def update(self, done: int) -> None:
        if self._bar is None and time.monotonic() - self._start >= DELAY:
            self._bar = self._make()
        if self._bar:
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar:
            self._bar.close()

    def _make(self) -> Any:  # noqa: ANN401  (tqdm, or False where there is none)
        try:
            from tqdm import tqdm
        except ImportError:
            return False
        hidden = False if self._forced else None  # None: hidden unless it is a terminal.
        bar = tqdm(total=self._total, unit="B", unit_scale=True, desc=self._verb, disable=hidden)
        return False if bar.disable else bar
