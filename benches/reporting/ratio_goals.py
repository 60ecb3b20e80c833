"""Goals that compare a time with those of rivals, in the same rounds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reporting.tables import TIMES, ratio_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reporting.summary import Entry, Section

FLOATS = "bf16 file into float32 parameters, warm"
CHILDREN = "50,000 child modules, warm"
FRESH_RIVALS = (
    "safetensors-bytes",
    "safetensors-pread",
    "fastsafetensors",
    "fastsafetensors-buffered",
    "runai",
    "runai-buffered",
)


@dataclass(frozen=True)
class RatioGoal:
    """Time of the fastest of `rivals`, divided by ours, is at least `least`."""

    title: str
    against: str
    workload: str
    cache: str
    rivals: tuple[str, ...]
    least: float

    def text(self) -> str:
        """The goal in words."""
        return f"{self.title}: at least {self.least:g}{TIMES} {self.against}"

    def judged(self, table: Mapping[tuple[str, str], Section]) -> tuple[str, bool] | None:
        """What was measured, and whether it is enough; None where nothing was."""
        section = table.get((self.workload, self.cache))
        if section is None:
            return None
        ratios = {
            entry: entry.ratio.median
            for entry in section.entries
            if entry.competitor in self.rivals and entry.ratio
        }
        if not ratios:
            return None
        fastest = min(ratios, key=ratios.__getitem__)
        return self._measured(fastest, ratios[fastest]), ratios[fastest] >= self.least

    def _measured(self, fastest: Entry, ratio: float) -> str:
        name = f" ({fastest.title})" if len(self.rivals) > 1 else ""
        return f"{ratio_text(ratio)}{name}"


READ_GOALS = (
    RatioGoal(
        "2.2 GB into a model, cold",
        "the transformers rule",
        "tinyllama",
        "cold",
        ("transformers-rule",),
        2.5,
    ),
    RatioGoal("2.2 GB into a model, cold", "huggingface_hub", "tinyllama", "cold", ("hub",), 2.5),
    RatioGoal(
        "2.2 GB into a model, cold", "the raw limit", "tinyllama", "cold", ("raw-limit",), 0.85
    ),
    RatioGoal(
        "2.2 GB into a model, cold",
        "the raw limit of direct reads",
        "tinyllama",
        "cold",
        ("direct-limit",),
        0.85,
    ),
    RatioGoal(
        "2.2 GB into a model, warm", "the raw limit", "tinyllama", "warm", ("raw-limit",), 0.85
    ),
    RatioGoal(
        FLOATS,
        "load_state_dict on load_file",
        "tinyllama-float32",
        "warm",
        ("transformers-rule", "hub"),
        2.5,
    ),
    RatioGoal(
        "fresh tensors, warm",
        "the best of safetensors, fastsafetensors, runai",
        "fresh",
        "warm",
        FRESH_RIVALS,
        2.0,
    ),
    RatioGoal(
        "fresh tensors, cold",
        "the best of safetensors, fastsafetensors, runai",
        "fresh",
        "cold",
        FRESH_RIVALS,
        1.5,
    ),
    RatioGoal(CHILDREN, "huggingface_hub", "flat-children-50000", "warm", ("hub",), 150),
    RatioGoal(
        CHILDREN,
        "the transformers rule",
        "flat-children-50000",
        "warm",
        ("transformers-rule",),
        150,
    ),
    RatioGoal(
        "50,000 parameters of one module, warm",
        "the transformers rule or huggingface_hub",
        "flat-parameters-50000",
        "warm",
        ("transformers-rule", "hub"),
        1.0,
    ),
    RatioGoal(
        "an eighth of the columns, cold",
        "safe_open.get_slice",
        "tinyllama-columns",
        "cold",
        ("safetensors",),
        3.0,
    ),
    RatioGoal(
        "first forward pass after a mapped load, cold",
        "safetensors.load_file",
        "first-forward",
        "cold",
        ("safetensors",),
        1.5,
    ),
)
