"""Rivals of the benchmarks: none is dropped in silence, none gets a time for work not done."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import harness.rival_packages
import install_rivals
import pytest
import torch
import windlass
from checkpoints.families import build_layout
from checkpoints.files import write_checkpoint
from checkpoints.forward import first_logits
from checkpoints.naive_reader import read_tensors
from definitions import WARM
from engines.proof import ProofError, verify_owned
from harness.conversion import why_not_ready
from harness.launch import Launcher
from harness.rival_packages import recorded_outcomes, rival_requirements, why_missing
from harness.schedule import Turn
from rivals import RIVALS
from workloads import GROUPS, find_workload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of outcomes, not there yet, in place of the real one."""
    path = tmp_path / "outcomes.json"
    monkeypatch.setattr(harness.rival_packages, "OUTCOMES", path)
    recorded_outcomes.cache_clear()
    why_not_ready.cache_clear()
    yield path
    recorded_outcomes.cache_clear()
    why_not_ready.cache_clear()


@pytest.fixture(scope="module")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_checkpoint(build_layout("tinyllama-quick"), folder, seed=1)
    return folder


def test_what_rivals_need_is_what_the_project_installs_for_them() -> None:
    assert {rival.package for rival in RIVALS} == set(rival_requirements())


def test_every_rival_shows_its_setting() -> None:
    assert all(rival.setting for rival in RIVALS)
    assert len({rival.key for rival in RIVALS}) == len(RIVALS)


def test_a_rival_that_is_not_installed_says_how_to(outcomes: Path) -> None:
    assert not outcomes.exists()
    assert why_missing("tensorizer") == "tensorizer is not installed: run make bench-rivals"


def test_a_rival_that_could_not_be_installed_says_why(outcomes: Path) -> None:
    outcomes.write_text(json.dumps({"tensorizer": "no wheel", "flashpack": ""}))
    assert why_missing("tensorizer") == "tensorizer could not be installed: no wheel"
    assert why_missing("flashpack") is None


def test_a_missing_rival_gets_a_record_with_the_reason(outcomes: Path, tmp_path: Path) -> None:
    assert not outcomes.exists()
    workload = find_workload("fresh")
    turn = Turn(workload, RIVALS[0], WARM, 0)
    (record,) = Launcher(timeout_seconds=10, limit_threads=1).run(turn, tmp_path)
    assert record["competitor"] == RIVALS[0].key
    assert record["error"].startswith("fastsafetensors is not installed")


def test_a_failed_installation_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            words, 1, "", "  error: No solution\n  ╰─▶ no such version\n"
        )

    monkeypatch.setattr(install_rivals, "run_uv", fail)
    assert install_rivals.install(["nothing"]) == "error: No solution no such version"


def test_a_map_of_a_file_is_not_memory_of_its_own(small_llama: Path) -> None:
    path = min(small_llama.glob("*.safetensors"))
    verify_owned(windlass.load_file(path, memory="owned"))
    with pytest.raises(ProofError, match=path.name):
        verify_owned(windlass.load_file(path, memory="mapped"))


def test_the_first_pass_reads_every_tensor(small_llama: Path) -> None:
    tensors = {
        name: tensor
        for path in small_llama.glob("*.safetensors")
        for name, tensor in read_tensors(path)
    }
    seen: set[str] = set()

    class Watched(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            seen.add(name)
            return super().__getitem__(name)

    assert first_logits(Watched(tensors)).isfinite().all()
    assert seen == tensors.keys()


@pytest.mark.parametrize("name", sorted({name for names in GROUPS.values() for name in names}))
def test_every_workload_has_a_small_twin_with_data(name: str) -> None:
    twin = find_workload(f"{name}-quick")
    assert build_layout(twin.layout).tensors
    assert twin.baseline in {competitor.key for competitor in twin.competitors}
