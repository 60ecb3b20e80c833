"""Stops a process at each of its system calls (`ptrace`, Linux), so that nothing is left to chance.

Only what every architecture has is used: whether a call changed anything is seen in the folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_TRACE_THREADS, _KILL_ON_EXIT = 8, 0x100000
_WAIT_FOR_THREADS = 0x40000000


def let_parent_trace() -> None:
    """Stop until the parent goes through `stops`; for the child, right after the fork."""
    _ptrace(_TRACEME, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


def stops(pid: int) -> Iterator[None]:
    """Yield while a thread of a child is stopped at a system call, until the child has ended."""
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, _TRACE_THREADS | _KILL_ON_EXIT)
    thread, passed_on = pid, 0
    while True:
        _ptrace(_SYSCALL, thread, passed_on)
        thread, status = os.waitpid(-1, _WAIT_FOR_THREADS)
        while os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread == pid:
                if status:
                    raise ChildProcessError(f"the traced process ended with status {status}")
                return
            thread, status = os.waitpid(-1, _WAIT_FOR_THREADS)
        yield
        reason = os.WSTOPSIG(status)
        passed_on = 0 if reason in {signal.SIGTRAP, signal.SIGSTOP} else reason


def _ptrace(request: int, pid: int, data: int) -> None:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    call.restype = ctypes.c_long
    if call(request, pid, None, data) < 0 and ctypes.get_errno() != errno.ESRCH:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
