"""A small hub on loopback that speaks the protocol of the real one, and fails on request."""

from __future__ import annotations

from hub_server.faults import Fault
from hub_server.server import HubServer

__all__ = ["Fault", "HubServer"]
