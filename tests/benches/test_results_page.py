"""The page of results: made of what is kept, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page import kept_records, rebuild
from reporting.page import PAGE, PICTURES, page_text, pictured
from reporting.store import compact, expand, pool, replace
from reporting.summary import summarise
from reporting.tables import TIMES

BENCHES = Path(__file__).resolve().parent.parent.parent / "benches"


def header(started: str = "2026-01-01") -> dict[str, Any]:
    return {
        "kind": "machine",
        "command": "python benches/run.py",
        "started": started,
        "machine": {"cpu": "one", "commit": "abc"},
        "versions": {"torch": "2"},
    }


def run(competitor: str, number: int, seconds: float, **facts: Any) -> dict[str, Any]:
    return {
        "kind": "run",
        "workload": "tinyllama",
        "workload_title": "TinyLlama",
        "task": "fill",
        "baseline": "windlass",
        "competitor": competitor,
        "title": competitor,
        "cache": "cold",
        "round": number,
        "seconds": seconds,
    } | facts


def failed(competitor: str, number: int) -> dict[str, Any]:
    record = run(competitor, number, 0.0, error="no such thing")
    del record["seconds"]
    return record


def test_the_page_is_made_of_the_results_that_are_kept() -> None:
    assert (BENCHES / PAGE).read_text() == page_text(kept_records(BENCHES))


def test_the_pictures_are_those_that_the_page_shows() -> None:
    shown = pictured(summarise(kept_records(BENCHES)))
    assert sorted(path.stem for path in (BENCHES / PICTURES).glob("*")) == sorted(shown)


def test_kept_results_give_the_same_summary_as_the_runs() -> None:
    records = pool(
        [
            [
                header(),
                run("windlass", 0, 1.25, bytes=100, extra_peak_bytes=7, setting="fast"),
                failed("hub", 0),
                run("hub", 1, 2.5),
                run("windlass", 1, 1.5, setting="fast"),
            ]
        ]
    )
    lines = json.loads(json.dumps(compact(records)))
    assert summarise(expand(lines)) == summarise(records)
    assert sum(line["kind"] == "series" for line in lines) == 2


def test_rounds_of_files_named_together_are_all_counted_and_never_mixed() -> None:
    first = [header("a"), run("windlass", 0, 1.0), run("hub", 0, 3.0)]
    second = [header("b"), run("windlass", 0, 2.0), run("hub", 0, 2.0)]
    (section,) = summarise(pool([first, second]))
    hub = section.entry("hub")
    assert hub is not None
    assert hub.ratio is not None
    assert (hub.ratio.lowest, hub.ratio.highest, hub.ratio.count) == (1.0, 3.0, 2)


def test_new_runs_replace_those_of_their_workload_and_state_alone() -> None:
    old = pool([[header("a"), run("windlass", 0, 1.0)]])
    other = pool([[header("b"), run("windlass", 0, 1.0) | {"cache": "warm"}]])
    new = pool([[header("c"), run("windlass", 0, 9.0)]])
    kept = replace(replace(old, other), new)
    assert [record["started"] for record in kept if record["kind"] == "machine"] == ["b", "c"]
    assert sorted(record["seconds"] for record in kept if record["kind"] == "run") == [1.0, 9.0]


def test_versions_of_the_rivals_come_from_their_own_runs() -> None:
    versions = {"tensorizer": "2.12"}
    pooled = pool([[header(), run("tensorizer", 0, 1.0, versions=versions)]])
    assert pooled[0]["versions"] == {"torch": "2", "tensorizer": "2.12"}


def test_a_failure_stands_on_the_page_with_its_reason() -> None:
    text = page_text(pool([[header(), run("windlass", 0, 1.0), failed("hub", 0)]]))
    assert "| hub | failed |" in text
    assert "- hub: no such thing" in text


def test_competitors_stand_as_their_workload_names_them_whoever_ran_first() -> None:
    keys = ("raw-limit", "unknown", "hub", "windlass", "transformers-rule")
    (section,) = summarise(pool([[header(), *(run(key, 0, 1.0) for key in keys)]]))
    named = ["windlass", "transformers-rule", "hub", "raw-limit", "unknown"]
    assert [entry.competitor for entry in section.entries] == named


def test_a_table_tells_who_was_not_asked() -> None:
    keys = ("windlass", "transformers-rule", "raw-limit")
    cold = [run(key, 0, 1.0) for key in keys]
    text = page_text(pool([[header(), *cold, *(record | {"cache": "warm"} for record in cold)]]))
    told = [line for line in text.splitlines() if line.startswith("- left out")]
    without = "- left out of these rounds: huggingface_hub; torch.load (.bin, mmap)"
    assert told == [f"{without}; raw limit, direct", without]


def test_what_is_judged_has_a_table() -> None:
    records = [run("windlass", 0, 1.0, bytes=100) | {"workload": "pretrained-tinyllama"}]
    assert "\n### TinyLlama" in page_text(pool([[header(), *records]]))


def test_small_twins_never_reach_the_page(tmp_path: Path) -> None:
    results = tmp_path / "quick.jsonl"
    quick = run("windlass", 0, 1.0) | {"workload": "tinyllama-quick"}
    results.write_text("".join(json.dumps(line) + "\n" for line in (header(), quick)))
    rebuild(tmp_path, [results])
    assert kept_records(tmp_path) == []


def test_a_page_of_one_run_has_goals_pictures_tables_and_the_command(tmp_path: Path) -> None:
    results = tmp_path / "run.jsonl"
    lines = (header(), run("windlass", 0, 1.0), run("transformers-rule", 0, 3.0))
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rebuild(tmp_path, [results])
    text = (tmp_path / PAGE).read_text()
    for words in (
        "at least 2.5",
        f"3.00{TIMES}",
        "| met |",
        "pictures/tinyllama.png",
        "`python benches/",
    ):
        assert words in text
    assert (tmp_path / PICTURES / "tinyllama.png").stat().st_size > 0


@pytest.mark.parametrize("name", [PAGE, "results.jsonl"])
def test_the_page_is_small_enough_for_the_repository(name: str) -> None:
    assert (BENCHES / name).stat().st_size < 1_000_000
