"""A process that dies while it saves leaves the old checkpoint or the new one, whole.

Real processes are killed at random moments; and one is stopped at each of its system calls, where
every state of the folder is copied: that is what a kill there would leave behind.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
import windlass
from builders.loaders import NEW, OLD, SIGNS
from builders.saver import Checkpoint
from builders.saves import folder_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from builders.loaders import Loaders
    from builders.saver import Saver

ONE_FILE, TWO_SHARDS, FIVE_SHARDS = "1GB", "8KB", "4KB"
TRANSITIONS = {
    "single to sharded": (ONE_FILE, FIVE_SHARDS),
    "sharded to single": (FIVE_SHARDS, ONE_FILE),
    "fewer shards": (FIVE_SHARDS, TWO_SHARDS),
    "same names": (FIVE_SHARDS, FIVE_SHARDS),
}
KILLS = 1000 if os.environ.get("WINDLASS_TEST_PROFILE") == "long" else 50  # Of each transition.

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Those of transformers.


class Death(NamedTuple):
    """What was seen after a save ended half way.

    Attributes:
        found: what each loader found.
        tidied_by: `windlass.recover`, or the next save.
        names: all names in the folder after that.
        found_then: what each loader found after that.
    """

    found: dict[str, str]
    tidied_by: str
    names: frozenset[str]
    found_then: dict[str, str]


class Scene(NamedTuple):
    """A folder whose old checkpoint is about to be replaced, and how.

    Attributes:
        names: names in the folder with the old checkpoint, and with the new.
        judged: what each loader found, by all that was in the folder.
    """

    folder: Path
    saver: Saver
    loaders: Loaders
    old: Checkpoint
    new: Checkpoint
    names: dict[str, frozenset[str]]
    judged: dict[frozenset[tuple[str, bytes]], dict[str, str]]

    def go_back(self) -> None:
        self.saver.save(self.folder, self.old)

    def judge_tidy(self, folder: Path) -> dict[str, str]:
        """Judge a folder; loaders find the same twice where all bytes are the same."""
        content = frozenset(folder_bytes(folder).items())
        if content not in self.judged:
            self.judged[content] = self.loaders.judge(folder)
        return self.judged[content]


def _scene(transition: str, folder: Path, saver: Saver, loaders: Loaders) -> Scene:
    old, new = (
        Checkpoint(SIGNS[word], size)
        for word, size in zip((OLD, NEW), TRANSITIONS[transition], strict=True)
    )
    loaders.write_config(folder)
    names = {}
    for word, checkpoint in ((NEW, new), (OLD, old)):
        saver.save(folder, checkpoint)
        names[word] = _names(folder)
    return Scene(folder, saver, loaders, old, new, names, {})


@pytest.fixture(scope="module", params=TRANSITIONS)
def scene(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    saver: Saver,
    loaders: Loaders,
) -> Scene:
    return _scene(request.param, tmp_path_factory.mktemp("scene"), saver, loaders)


@pytest.fixture(scope="module")
def killed(scene: Scene) -> list[Death]:
    """Kill saves at moments that are spread evenly over the time that a save takes."""
    whole = scene.saver.time_save(scene.folder, scene.new)
    moments = random.Random(scene.folder.name)
    deaths: list[Death] = []
    scene.go_back()
    while len(deaths) < KILLS:
        is_old = False
        if scene.saver.kill_save(scene.folder, scene.new, moments.uniform(0, whole)):
            deaths.append(_look(scene, scene.folder, by_next_save=len(deaths) % 2 == 0))
            is_old = deaths[-1].tidied_by == "next save"
        if not is_old:
            scene.go_back()
    return deaths


@pytest.fixture(scope="module")
def stopped(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> list[Death]:
    """Stop a save at each system call, and look at a copy of each state of the folder."""
    scene.go_back()
    states = scene.saver.copy_states(scene.folder, scene.new, tmp_path_factory.mktemp("states"))
    return [_look(scene, state, by_next_save=n % 2 == 0) for n, state in enumerate(states)]


@pytest.fixture(params=["killed", *(["stopped"] if sys.platform == "linux" else [])])
def deaths(request: pytest.FixtureRequest, scene: Scene) -> list[Death]:
    del scene  # Of which there is one for each transition.
    deaths: list[Death] = request.getfixturevalue(request.param)
    return deaths


def _look(scene: Scene, folder: Path, *, by_next_save: bool) -> Death:
    found = scene.loaders.judge(folder)
    if by_next_save:
        scene.saver.save(folder, scene.old)
    else:
        windlass.recover(folder)
    tidied_by = "next save" if by_next_save else "recover"
    return Death(found, tidied_by, _names(folder), scene.judge_tidy(folder))


def _names(folder: Path) -> frozenset[str]:
    return frozenset(os.listdir(folder))


def test_every_loader_finds_the_old_checkpoint_or_the_new(deaths: list[Death]) -> None:
    assert {verdict for death in deaths for verdict in death.found.values()} <= {OLD, NEW}


def test_every_loader_finds_the_old_checkpoint_first_and_the_new_one_last(
    stopped: list[Death],
) -> None:
    assert set(stopped[0].found.values()) == {OLD}
    assert set(stopped[-1].found.values()) == {NEW}


def test_no_loader_finds_the_old_checkpoint_again_after_the_new_one(stopped: list[Death]) -> None:
    for loader in stopped[0].found:
        found = [death.found[loader] for death in stopped]
        assert found == sorted(found, key=[OLD, NEW].index)


def test_recover_leaves_the_files_of_one_checkpoint_and_no_other(
    deaths: list[Death], scene: Scene
) -> None:
    recovered = [death for death in deaths if death.tidied_by == "recover"]
    assert recovered
    for death in recovered:
        (word,) = set(death.found_then.values())
        assert death.names == scene.names[word]


def test_the_next_save_leaves_its_own_files_and_no_other(deaths: list[Death], scene: Scene) -> None:
    saved_over = [death for death in deaths if death.tidied_by == "next save"]
    assert {word for death in saved_over for word in death.found_then.values()} == {OLD}
    assert {death.names for death in saved_over} == {scene.names[OLD]}


def test_what_windlass_found_is_what_recover_keeps(deaths: list[Death]) -> None:
    for death in deaths:
        if death.tidied_by == "recover":
            (word,) = set(death.found_then.values())
            assert word == death.found["windlass.load_torch_model"]


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as Linux has it")
def test_saves_of_processes_with_one_parent_never_have_the_same_name(
    tmp_path: Path, saver: Saver
) -> None:
    names: list[frozenset[str]] = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "folder").mkdir()
        states = saver.copy_states(
            tmp_path / run / "folder", Checkpoint(SIGNS[OLD], FIVE_SHARDS), tmp_path / run
        )
        names.append(frozenset().union(*(_names(state) for state in states)))
    first, second = ({name for name in one if ".windlass-" in name} for one in names)
    assert len(first) == len(second) == 1
    assert first != second
