"""Random modules: nested and shared, with ties, views, strides, dtypes and all kinds of buffers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from builders.bits import random_tensor, small_tensor

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.complex64,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
)
FILE_DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int32, torch.uint8)
SHAPES = ((), (1,), (4,), (2, 3), (3, 2, 2), (5, 1), (0,), (0, 3))
LAYOUTS = ("contiguous", "permuted", "strided", "offset")
VIEWS = ("same", "same", "alias", "transposed", "flat", "half", "row", "even", "odd")
KINDS = ("parameter", "parameter", "buffer", "transient")


@dataclass(frozen=True)
class Base:
    """One piece of memory that leaves look at."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    trains: bool


@dataclass(frozen=True)
class Leaf:
    """One name: which module holds it, which base it looks at and how."""

    module: int
    base: int
    view: str
    kind: str


@dataclass(frozen=True)
class ModelPlan:
    """Everything that decides a random model, so that it can be built twice."""

    parents: tuple[int, ...]
    shared: tuple[tuple[int, int], ...]
    bases: tuple[Base, ...]
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class CheckpointPlan:
    """Everything that decides a checkpoint of a model."""

    absent: frozenset[int]
    file_dtypes: tuple[torch.dtype | None, ...]
    ties_differ: bool
    extras: int
    places: tuple[int, ...]
    is_reversed: bool
    seed: int


@st.composite
def model_plans(draw: st.DrawFn) -> ModelPlan:
    """Draw a model."""
    parents = tuple(draw(st.integers(0, child)) for child in range(draw(st.integers(0, 3))))
    modules = len(parents) + 1
    couples = [(one, two) for one in range(modules) for two in range(one + 1, modules)]
    shared = draw(st.lists(st.sampled_from(couples), max_size=1)) if couples else []
    base = st.builds(
        Base,
        st.sampled_from(SHAPES),
        st.sampled_from(DTYPES),
        st.sampled_from(LAYOUTS),
        st.booleans(),
    )
    bases = tuple(draw(st.lists(base, min_size=1, max_size=4)))
    leaf = st.builds(
        Leaf,
        st.integers(0, modules - 1),
        st.integers(0, len(bases) - 1),
        st.sampled_from(VIEWS),
        st.sampled_from(KINDS),
    )
    return ModelPlan(parents, tuple(shared), bases, tuple(draw(st.lists(leaf, max_size=7))))


@st.composite
def checkpoint_plans(draw: st.DrawFn) -> CheckpointPlan:
    """Draw a checkpoint; its tuples repeat over the names of the model."""
    file_dtype = st.one_of(st.none(), st.sampled_from(FILE_DTYPES))
    is_cast = draw(st.booleans())
    return CheckpointPlan(
        absent=draw(st.frozensets(st.integers(0, 11), max_size=3)),
        file_dtypes=tuple(draw(st.lists(file_dtype, min_size=1, max_size=4))) if is_cast else (),
        ties_differ=draw(st.booleans()),
        extras=draw(st.integers(0, 2)),
        places=tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))),
        is_reversed=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


def build_model(plan: ModelPlan, seed: int = 0, *, is_small: bool = False) -> torch.nn.Module:
    """Build a model: equal plans and seeds give equal models that share no memory."""
    modules = [torch.nn.Module() for _ in range(len(plan.parents) + 1)]
    for child, parent in enumerate(plan.parents, start=1):
        modules[parent].add_module(f"m{child}", modules[child])
    for parent, child in plan.shared:
        modules[parent].add_module(f"again{child}", modules[child])
    fill = small_tensor if is_small else random_tensor
    memory = [_base_tensor(base, seed + 31 * n, fill) for n, base in enumerate(plan.bases)]
    parameters: dict[int, torch.nn.Parameter] = {}
    for number, leaf in enumerate(plan.leaves):
        tensor = look(memory[leaf.base], leaf.view)
        if leaf.kind != "parameter":
            persistent = leaf.kind == "buffer"
            modules[leaf.module].register_buffer(f"t{number}", tensor, persistent=persistent)
            continue
        parameter = torch.nn.Parameter(tensor, requires_grad=_trains(plan.bases[leaf.base]))
        if leaf.view == "same":
            parameter = parameters.setdefault(leaf.base, parameter)
        modules[leaf.module].register_parameter(f"t{number}", parameter)
    return modules[0]


def _trains(base: Base) -> bool:
    return base.trains and (base.dtype.is_complex or base.dtype.is_floating_point)


def _base_tensor(base: Base, seed: int, fill: object) -> torch.Tensor:
    assert callable(fill)
    count = torch.Size(base.shape).numel()
    if base.layout == "offset":
        return fill((count + 3,), base.dtype, seed)[3:].view(base.shape)
    if base.layout == "permuted" and base.shape:
        return fill(base.shape[::-1], base.dtype, seed).permute(*reversed(range(len(base.shape))))
    if base.layout == "strided" and base.shape:
        return fill((*base.shape[:-1], 2 * base.shape[-1]), base.dtype, seed)[..., ::2]
    return fill(base.shape, base.dtype, seed)


def look(tensor: torch.Tensor, view: str) -> torch.Tensor:
    """Return a view of a tensor, or the tensor itself where it has no such view."""
    if tensor.dim() == 0 or tensor.numel() == 0:
        return tensor
    half = (tensor.shape[0] + 1) // 2
    views = {
        "transposed": lambda: tensor.transpose(0, -1),
        "flat": lambda: tensor.view(-1) if tensor.is_contiguous() else tensor,
        "half": lambda: tensor[:half],
        "row": lambda: tensor[0],
        "even": lambda: tensor[::2],
        "odd": lambda: tensor[1::2] if tensor.shape[0] > 1 else tensor,
    }
    return views.get(view, lambda: tensor)()


def checkpoint_tensors(model_plan: ModelPlan, plan: CheckpointPlan) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, in index order."""
    is_small = bool(plan.file_dtypes)
    source = build_model(model_plan, plan.seed + 1, is_small=is_small).state_dict()
    tensors: dict[str, torch.Tensor] = {}
    for number, (name, tensor) in enumerate(source.items()):
        if number not in plan.absent:
            tensors[name] = _file_tensor(tensor, number, plan)
    for number in range(plan.extras):
        tensors[f"extra.{number}"] = torch.full((2,), float(number))
    return dict(reversed(tensors.items())) if plan.is_reversed else tensors


def _file_tensor(tensor: torch.Tensor, number: int, plan: CheckpointPlan) -> torch.Tensor:
    if plan.ties_differ:
        fill = small_tensor if plan.file_dtypes else random_tensor
        tensor = fill(tuple(tensor.shape), tensor.dtype, plan.seed + 7 * number)
    if not plan.file_dtypes:
        return tensor
    dtype = plan.file_dtypes[number % len(plan.file_dtypes)]
    return tensor if dtype is None or tensor.is_complex() else tensor.to(dtype)
