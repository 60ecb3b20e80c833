"""Memory to spare is the least of what the system and each cgroup has."""

from __future__ import annotations

import sys

import pytest
from windlass.spare_memory import available_bytes, room_bytes, spare_bytes

MEMINFO = "MemTotal:       16384 kB\nMemFree:  100 kB\nMemAvailable:    1000 kB\nHugePages: x\n"
SYSTEM = 1000 * 1024
V1 = "9:cpu,cpuacct:/a\n8:memory:{}\n1:name=systemd:/a\n"
V2 = "0::{}\n"


def _v2(folder: str, limit: str, usage: int, inactive_file: int = 0) -> dict[str, str]:
    stat = f"anon 7\ninactive_anon 9\ninactive_file {inactive_file}\nactive_file 5\n"
    folder = f"/sys/fs/cgroup{folder}"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{usage}\n",
        f"{folder}/memory.stat": stat,
    }


def _v1(folder: str, limit: int, usage: int, inactive_file: int = 0) -> dict[str, str]:
    folder = f"/sys/fs/cgroup/memory{folder}"
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{usage}\n",
        f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {inactive_file}\n",
    }


def _self(text: str, path: str) -> dict[str, str]:
    return {"/proc/self/cgroup": text.format(path)}


TABLE: dict[str, tuple[dict[str, str], int]] = {
    "no cgroup": ({}, SYSTEM),
    "v2 without a limit": (_self(V2, "/a") | _v2("/a", "max", 10), SYSTEM),
    "v2": (_self(V2, "/a") | _v2("/a", "500", 100), 400),
    "v2 with files that give way": (_self(V2, "/a") | _v2("/a", "500", 100, 30), 430),
    "v2 above its limit": (_self(V2, "/a") | _v2("/a", "500", 600), 0),
    "v2 with room for more than there is": (_self(V2, "/a") | _v2("/a", str(1 << 40), 0), SYSTEM),
    "v2 of a parent": (_self(V2, "/a/b") | _v2("/a", "500", 100) | _v2("/a/b", "max", 1), 400),
    "v2 tighter than its parent": (
        _self(V2, "/a/b") | _v2("/a", "500", 100) | _v2("/a/b", "90", 1),
        89,
    ),
    "v2 in a container": (_self(V2, "/") | _v2("", "500", 100), 400),
    "v2 of a container whose path is outside it": (
        _self(V2, "/../../b") | _v2("", "500", 100),
        400,
    ),
    "v2 of somebody else": (_self(V2, "/a") | _v2("/b", "5", 1), SYSTEM),
    "v2 without usage": (
        _self(V2, "/a") | {"/sys/fs/cgroup/a/memory.max": "500\n"},
        SYSTEM,
    ),
    "v1": (_self(V1, "/a") | _v1("/a", 500, 100, 30), 430),
    "v1 without a limit": (_self(V1, "/a") | _v1("/a", 9223372036854771712, 100), SYSTEM),
    "v1 in a container that sees its cgroup as the root": (
        _self(V1, "/docker/abc") | _v1("", 500, 100),
        400,
    ),
    "both": (
        {"/proc/self/cgroup": V1.format("/a") + V2.format("/a")}
        | _v1("/a", 500, 100)
        | {
            path.replace("cgroup/a", "cgroup/unified/a"): text
            for path, text in _v2("/a", "300", 100).items()
        },
        200,
    ),
    "nonsense": ({"/proc/self/cgroup": "\n:\nx\n0::\n3:memory\n"}, SYSTEM),
}


@pytest.mark.parametrize("case", TABLE)
def test_least_room_counts(case: str) -> None:
    texts, expected = TABLE[case]
    assert spare_bytes({"/proc/meminfo": MEMINFO, **texts}.get) == expected


def test_limit_counts_where_the_system_tells_nothing() -> None:
    assert spare_bytes((_self(V2, "/a") | _v2("/a", "500", 100)).get) == 400


def test_nothing_is_known_where_nothing_is_told() -> None:
    assert spare_bytes(lambda _: None) is None


@pytest.mark.parametrize(
    "text", [None, "", "MemFree: 3 kB\n", "MemAvailable:\n", "MemAvailable: x kB"]
)
def test_system_without_an_estimate_gives_none(text: str | None) -> None:
    assert available_bytes(text) is None


@pytest.mark.parametrize(
    ("limit", "usage", "stat", "room"),
    [
        ("10\n", "4\n", "files 3\n", 9),
        ("10\n", "4\n", None, 6),
        ("10", "40", "files 3", 0),
        ("max\n", "4\n", "files 3\n", None),
        (None, "4\n", "files 3\n", None),
        ("10\n", None, "files 3\n", None),
        ("-1\n", "4\n", "", None),
    ],
)
def test_room_of_a_cgroup(
    limit: str | None, usage: str | None, stat: str | None, room: int | None
) -> None:
    assert room_bytes(limit, usage, stat, "files") == room


@pytest.mark.skipif(sys.platform != "linux", reason="files of Linux")
def test_this_machine_has_memory() -> None:
    spare = spare_bytes()
    assert spare is not None
    assert 0 < spare < 1 << 60
