"""Train, save in the middle, load back in place of everything, go on: the loss must not notice."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
import windlass
from terminal import DemoFailed, say, say_table, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from windlass import PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")
Batch = dict[str, torch.Tensor]

STEPS = 60
SAVED_AFTER = 30
SHARD = "40KB"
LEARNING_RATE = 3e-3
FALLS_TO = 0.7  # Of the first loss, the last one has to be at most this much.


def run(model: Model, make_batch: Callable[[torch.Generator], Batch]) -> Model:
    """Show that a training that was saved and loaded goes on exactly as one that was not.

    Args:
        model: a new model, whose `forward` takes a batch and returns a loss.
        make_batch: makes up one batch of data.

    Returns:
        The model that was loaded back and trained to the end.
    """
    torch.set_num_threads(1)  # The model is too small to share among processors.
    with tempfile.TemporaryDirectory(prefix="windlass-example-") as folder:
        return _run(model, make_batch, Path(folder) / "checkpoint")


def _run(model: Model, make_batch: Callable[[torch.Generator], Batch], folder: Path) -> Model:
    step(1, f"Train {type(model).__name__}, {model.num_parameters():,} parameters")
    optimizer = new_optimizer(model)
    batches = list(made_up(make_batch))
    first = train(model, optimizer, batches[:SAVED_AFTER])
    step(2, f"Save in shards of {SHARD} (save_pretrained)")
    save(model, optimizer, folder)
    step(3, "Go on, and remember the losses")
    straight = train(model, optimizer, batches[SAVED_AFTER:])
    step(4, "Load back (from_pretrained), and train the same steps again")
    loaded, optimizer = load_back(type(model), folder)
    resumed = train(loaded, optimizer, batches[SAVED_AFTER:])
    compare(first, straight, resumed)
    return loaded


def new_optimizer(model: PreTrainedModel) -> torch.optim.Optimizer:
    """Return the optimizer of every run."""
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)


def made_up(make_batch: Callable[[torch.Generator], Batch]) -> Iterator[Batch]:
    """Make up the same batches every time."""
    generator = torch.Generator().manual_seed(0)
    return (make_batch(generator) for _ in range(STEPS))


def train(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, batches: list[Batch]
) -> list[float]:
    """Take a step for each batch; return the losses."""
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss: torch.Tensor = model(**batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def save(model: PreTrainedModel, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Save model and optimizer, and list the files."""
    model.save_pretrained(folder, max_shard_size=SHARD)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    rows = [(path.name, f"{path.stat().st_size:,} B") for path in sorted(folder.iterdir())]
    say_table(("file", "size"), rows)
    if not (folder / "model.safetensors.index.json").is_file():
        message = "the checkpoint has no shards"
        raise DemoFailed(message)
    say(f"{len(windlass.Checkpoint(folder))} tensors; tied ones are stored once.")


def load_back(kind: type[Model], folder: Path) -> tuple[Model, torch.optim.Optimizer]:
    """Return the saved model and its optimizer."""
    loaded, report = kind.from_pretrained(folder, output_loading_info=True)
    say(f"missing keys: {len(report['missing_keys'])}")
    say(f"unexpected keys: {len(report['unexpected_keys'])}")
    if report["missing_keys"] or report["unexpected_keys"]:
        message = f"the names do not fit the model: {report}"
        raise DemoFailed(message)
    optimizer = new_optimizer(loaded)
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    return loaded, optimizer


def compare(first: list[float], straight: list[float], resumed: list[float]) -> None:
    """Print losses side by side; fail if they differ, or did not fall."""
    shown = range(0, len(straight), 6)
    rows = [
        (f"{SAVED_AFTER + number + 1}", f"{straight[number]:.6f}", f"{resumed[number]:.6f}")
        for number in shown
    ]
    say_table(("step", "never saved", "loaded back"), rows)
    if straight != resumed:
        message = "the loss of the loaded model differs from that of the model in memory"
        raise DemoFailed(message)
    if straight[-1] > FALLS_TO * first[0]:
        message = f"the model learned nothing: loss {first[0]:.3f} at first, {straight[-1]:.3f} now"
        raise DemoFailed(message)
    say(f"Equal to the last bit; the loss fell from {first[0]:.3f} to {straight[-1]:.3f}.")
