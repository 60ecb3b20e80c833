"""Ways from host memory to other devices that leave the host free meanwhile.

A lane takes copies in order and carries them out later. Whoever wants to use the host memory of a
copy again waits for a mark that was set behind it.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Mark(Protocol):
    """A place in the order of a lane's copies."""

    def synchronize(self) -> None:
        """Wait until all copies before it are done."""


class Lane(Protocol):
    """Copies to one device, carried out in order."""

    def send(self, target: torch.Tensor, values: torch.Tensor) -> None:
        """Copy host memory to a tensor of the device, sooner or later; cast on the device.

        The host memory must stay as it is until a mark behind it is reached.
        """

    def mark(self) -> Mark:
        """Return the place behind what was sent so far."""

    def close(self) -> None:
        """Have the caller's own work on the device begin behind what was sent."""


class CudaLane:
    """A CUDA stream of its own, beside the caller's.

    Args:
        device: the GPU. What the caller has begun there is done before the first copy.
    """

    def __init__(self, device: torch.device) -> None:
        self._callers = torch.cuda.current_stream(device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(self._callers)

    def send(self, target: torch.Tensor, values: torch.Tensor) -> None:
        """See `Lane`. A tensor between two dtypes or orders is the stream's own memory."""
        with torch.cuda.stream(self._stream), torch.no_grad():
            if target.dtype != values.dtype or not _is_plain(target):
                values = values.to(target.device, non_blocking=True)
            target.copy_(values, non_blocking=True)

    def mark(self) -> Mark:
        """See `Lane`. Waiting for it takes no processor from those who read."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def close(self) -> None:
        """See `Lane`."""
        self._callers.wait_stream(self._stream)


def has_lane(device: torch.device) -> bool:
    """Whether there is a lane to that device."""
    return device.type == "cuda"


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether bytes can be moved to a tensor as they are."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
