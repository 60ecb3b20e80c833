"""Weight map and metadata → the text of an index file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def encode_index(weight_map: Mapping[str, str], metadata: Mapping[str, Any]) -> bytes:
    r"""Return an index file as transformers writes it: the same content always has the same bytes.

    Keys are sorted, indented by two, in ASCII (other characters as `\uXXXX`), and a newline ends
    the file.

    Args:
        weight_map: file name of each tensor.
        metadata: `total_size`, and whatever else the file should say.

    Raises:
        TypeError: `metadata` holds something that JSON does not have.
        ValueError: `metadata` holds a number that JSON does not have: NaN or an infinity.

    Example:
        >>> print(encode_index({"w": "a.safetensors"}, {"total_size": 4}).decode(), end="")
        {
          "metadata": {
            "total_size": 4
          },
          "weight_map": {
            "w": "a.safetensors"
          }
        }
    """
    content = {"metadata": dict(metadata), "weight_map": dict(weight_map)}
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("ascii")
