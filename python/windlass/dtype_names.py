"""Names of torch's dtypes, known without torch: what `torch_dtype` of a configuration may say."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Self

from windlass.errors import UnknownDtype

#: Other names that torch has for its dtypes → those that it prints.
_OTHER_NAMES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "chalf": "complex32",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "bit": "uint1",
}

_NAMES = frozenset(
    [
        "bool",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex32",
        "complex64",
        "complex128",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn_x2",
        "quint8",
        "qint8",
        "qint32",
        "quint4x2",
        "quint2x4",
        "bits1x8",
        "bits2x4",
        "bits4x2",
        "bits8",
        "bits16",
        "uint1",
        "uint2",
        "uint3",
        "uint4",
        "uint5",
        "uint6",
        "uint7",
        "int1",
        "int2",
        "int3",
        "int4",
        "int5",
        "int6",
        "int7",
    ]
)


class DtypeName(str):
    """The name of a dtype as torch prints it, without `torch.`.

    Raises:
        UnknownDtype: no dtype of torch has that name.

    Example:
        >>> DtypeName("half")
        'float16'
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        """Return the printed name for any of the names."""
        printed = _OTHER_NAMES.get(name, name)
        if printed not in _NAMES:
            message = f"torch_dtype: expected the name of a dtype of torch, found {name!r}"
            raise UnknownDtype(message)
        return super().__new__(cls, printed)


def dtype_of(name: DtypeName) -> Any:  # noqa: ANN401  (a torch.dtype: this module knows no torch)
    """Return the dtype itself; where torch is not installed, its name.

    Raises:
        UnknownDtype: the installed torch is too old for it.
    """
    if importlib.util.find_spec("torch") is None:
        return str(name)
    dtypes = importlib.import_module("windlass.torch.dtypes")
    return dtypes.dtype_named(name)


def name_of(dtype: object) -> str:
    """Return the name of a dtype, or the text that it was given by.

    Example:
        >>> name_of(torch.float16), name_of("float16")
        ('float16', 'float16')
    """
    return str(dtype).rpartition(".")[2]
