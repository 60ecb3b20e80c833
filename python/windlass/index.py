"""Weight map and metadata → the text of an index file."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as quoted
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
    told = json.dumps({"metadata": dict(metadata)}, indent=2, sort_keys=True, allow_nan=False)
    # Line by line: indented, all of it would go through json's encoder in Python, far slower.
    places = [f"    {quoted(name)}: {quoted(file)}" for name, file in sorted(weight_map.items())]
    listed = "{\n" + ",\n".join(places) + "\n  }" if places else "{}"
    return f'{told[:-2]},\n  "weight_map": {listed}\n}}\n'.encode("ascii")
