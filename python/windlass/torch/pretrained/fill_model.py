"""Weights of a checkpoint straight into the places of a model that has just been built."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from windlass.errors import IncompatibleKeys
from windlass.memory import refuse_beyond_limit
from windlass.progress import track
from windlass.quiet import paused_gc
from windlass.reports import ReadReport
from windlass.torch.fill import ReadSettings
from windlass.torch.load_sharded import warn_unlisted
from windlass.torch.match import Mismatch, refuse_incompatible
from windlass.torch.plan import plan_load
from windlass.torch.pretrained.build import initialise_absent, keep_in_float32, mark_initialised
from windlass.torch.pretrained.keys import match_keys, without_ignored
from windlass.torch.pretrained.mapped import map_weights
from windlass.torch.pretrained.renamed import RenamedSource
from windlass.torch.pretrained.report import LoadingReport
from windlass.torch.pretrained.tied_values import TiedValues, drop_tied
from windlass.torch.slots import Slot, walk

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Set as AbstractSet

    from windlass.torch.pretrained.keys import MatchedNames
    from windlass.torch.pretrained.model import PreTrainedModel
    from windlass.torch.sources import Source
    from windlass.types import Cache, Io, PretrainedMemory, Progress


class FillOptions(NamedTuple):
    """How weights are loaded; see `PreTrainedModel.from_pretrained`."""

    ignore_mismatched_sizes: bool
    initialise: bool
    keep_in_float32: Collection[str]
    memory: PretrainedMemory
    prefetch: int
    threads: int | None
    io: Io
    cache: Cache
    progress: Progress


def fill_model(model: PreTrainedModel, source: Source, options: FillOptions) -> LoadingReport:
    """Load what the checkpoint has, initialise what it lacks.

    Raises:
        IncompatibleKeys: shapes differ, and `ignore_mismatched_sizes` is false.
        MixedNames: the checkpoint mixes names of a base model and of a head.
    """
    warn_unlisted(source.unlisted)
    model.tie_weights()
    with paused_gc():
        state = model.state_dict(keep_vars=True)
        names = _match(model, list(state), source)
        mismatched = _find_mismatched(model, state, names, source, options)
        stored = {name: kept for name, kept in names.stored.items() if name not in mismatched}
        tied = drop_tied(model, state, stored, source)
    if options.initialise:
        _initialise(model, state.keys(), names.stored.keys() - mismatched.keys())
    keep_in_float32(model, options.keep_in_float32, stored)
    covered = _read(model, RenamedSource(source, stored, _versions(source, names)), options, tied)
    held = {id(state[name]) for name in mismatched}  # Told as mismatched, and not a second time.
    missing = [
        text
        for name, text in names.absent.items()
        if name not in covered and id(state[name]) not in held
    ]
    return LoadingReport(
        sorted(set(without_ignored(missing, model._keys_to_ignore_on_load_missing))),
        without_ignored(names.unexpected, model._keys_to_ignore_on_load_unexpected),
        [
            (names.stored[one.name], torch.Size(one.checkpoint_shape), torch.Size(one.model_shape))
            for one in mismatched.values()
        ],
    )


def _match(model: PreTrainedModel, expected: list[str], source: Source) -> MatchedNames:
    buffers = {name for name, _ in model.named_buffers()}
    return match_keys(
        expected,
        source.positions,
        base_model_prefix=model.base_model_prefix,
        transient=buffers.difference(expected),
    )


def _find_mismatched(
    model: PreTrainedModel,
    state: dict[str, Any],
    names: MatchedNames,
    source: Source,
    options: FillOptions,
) -> dict[str, Mismatch]:
    """Return what is of another shape. Modules that load themselves may take any, or say so."""
    compared = (_compare(name, state[name], source, kept) for name, kept in names.stored.items())
    found = {mismatch.name: mismatch for mismatch in compared if mismatch is not None}
    if options.ignore_mismatched_sizes or not found:
        return found
    plain = {entry.name for entry in walk(model) if isinstance(entry, Slot)}
    found = {name: mismatch for name, mismatch in found.items() if name in plain}
    if found:
        try:
            refuse_incompatible(model, [], [], list(found.values()))
        except IncompatibleKeys as error:
            error.add_note("ignore_mismatched_sizes=True loads the rest and initialises these.")
            raise
    return found


def _compare(name: str, value: object, source: Source, kept: str) -> Mismatch | None:
    if not isinstance(value, torch.Tensor) or is_lazy(value):
        return None
    shape = source.layout(kept).shape
    # Before torch 0.4 scalars were saved with one dimension; torch still takes them.
    if shape == value.shape or (shape == (1,) and not value.shape):
        return None
    return Mismatch(name, shape, tuple(value.shape))


def _initialise(model: PreTrainedModel, names: AbstractSet[str], present: AbstractSet[str]) -> None:
    if names <= present:
        mark_initialised(model)
        return
    head = model.get_output_embeddings() if _ties_embeddings(model) else None
    initialise_absent(
        model,
        present,
        initialise=model._initialize_weights,
        tied_head=head if getattr(head, "bias", None) is None else None,
    )


def _ties_embeddings(model: PreTrainedModel) -> bool:
    return bool(getattr(model.config, "tie_word_embeddings", False))


def _versions(source: Source, names: MatchedNames) -> dict[str, Any]:
    """Return the version numbers of modules under the names of the model."""
    text, change = names.prefix
    if change == "none":
        return source.metadata
    if change == "remove":
        return {(text + name).rstrip("."): found for name, found in source.metadata.items()}
    return {
        f"{name}.".removeprefix(text).rstrip("."): found
        for name, found in source.metadata.items()
        if f"{name}.".startswith(text)
    }


def _read(
    model: PreTrainedModel, source: RenamedSource, options: FillOptions, tied: TiedValues
) -> Collection[str]:
    """Fill the model; return names whose memory others fill.

    After an error the model is thrown away: nothing is brought back.
    """
    plan = plan_load(model, source, strict=False, assign=False, memory="mapped", undo=False)
    report = ReadReport()
    # The model was built a moment ago, and most of its memory not touched since.
    settings = ReadSettings(
        options.threads or 0, options.io, options.cache, fresh=True, report=report
    )
    total = plan.nbytes
    plan = map_weights(plan, source, options)
    refuse_beyond_limit(plan.nbytes, f"`{source.path}`")
    source.fills_once(plan.read_again)
    mapped = total - plan.nbytes
    with paused_gc(), track(total, options.progress) as tell:
        if tell and mapped:
            tell(mapped)
        plan.carry_out(settings._replace(tell=tell and (lambda done: tell(mapped + done))))
    report.log(source.path)
    for one, other in (*plan.conflicts(settings), *tied.find_conflicts(settings)):
        warnings.warn(
            f"`{one}` and `{other}` are one weight in the model, but the checkpoint gives them "
            f"different values; those of `{other}` were loaded",
            UserWarning,
            stacklevel=4,
        )
    return plan.ties.covered
