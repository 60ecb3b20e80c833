"""`safe_open`: a safetensors file opened lazily, shaped as in the package safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from windlass.arrays import ArrayFile
from windlass.errors import WindlassError
from windlass.frameworks import Framework, find_framework
from windlass.options import is_pread

if TYPE_CHECKING:
    from types import TracebackType

    from windlass.types import Memory, PathLike, Prefetch


class safe_open:  # noqa: N801  (the name that it replaces)
    """A safetensors file that gives tensors as they are asked for.

    Args:
        filename: the file.
        framework: `"pt"`, `"torch"` or `"pytorch"`; `"np"` or `"numpy"`.
        device: where tensors go; numpy knows only `"cpu"`.
        memory: `"mapped"` (default): tensors look into a private map of the file; `"owned"`: each
            is read into memory of its own.
        backend: safetensors' word for it: `"pread"` means `memory="owned"`.
        prefetch: read what is mapped ahead, in the background, until the file is closed; see
            `windlass.load_file`.
        strict_format: also refuse what the format forbids and safetensors accepts.

    Raises:
        ValueError: an unknown framework or device, or `prefetch` without a map.
        ShardNotFound: no such file.
        InvalidHeader: the file breaks the format.

    Example:
        >>> with safe_open(folder / "model.safetensors", framework="pt") as file:
        ...     file.get_slice("embed.weight")[:2].shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        filename: PathLike,
        framework: str,
        device: Any = "cpu",  # noqa: ANN401  (torch takes names, numbers and torch.device)
        *,
        memory: Memory = "mapped",
        backend: str = "mmap",
        prefetch: Prefetch = False,
        strict_format: bool = False,
    ) -> None:
        memory = "owned" if is_pread(backend) else memory
        self._framework: Framework = find_framework(framework, device)
        adapter = self._framework.adapter
        self._open: ArrayFile[Any] | None = ArrayFile(
            filename, adapter, memory=memory, strict_format=strict_format, prefetch=prefetch
        )

    @property
    def _file(self) -> ArrayFile[Any]:
        if self._open is None:
            message = "the file is closed: it was used after its `with` block"
            raise WindlassError(message)
        return self._open

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open is not None:
            self._open.stop_prefetch()
        self._open = None

    def keys(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._file.table.names())

    def offset_keys(self) -> list[str]:
        """Return the names in the order of their bytes."""
        return self._file.table.names()

    def metadata(self) -> dict[str, str] | None:
        """Return the `__metadata__` of the header."""
        return self._file.table.shard_metadata(0)

    def get_tensor(self, name: str) -> Any:  # noqa: ANN401  (an array of the framework)
        """Return one tensor.

        Raises:
            TensorNotFound: no such tensor.
        """
        return self._framework.place(self._file.get(name))

    def get_tensors(self, names: list[str] | None = None) -> dict[str, Any]:
        """Return the named tensors, or all of them, by name."""
        loaded = self._file.get_many(self.offset_keys() if names is None else names)
        return {name: self._framework.place(array) for name, array in loaded.items()}

    def get_slice(self, name: str) -> TensorSlice:
        """Return an object that gives parts of a tensor when it is indexed.

        Raises:
            TensorNotFound: no such tensor.
        """
        self._file.info(name)
        return TensorSlice(self._file, self._framework, name)


class TensorSlice:
    """One tensor of an open file; index it to get that part of it."""

    def __init__(self, file: ArrayFile[Any], framework: Framework, name: str) -> None:
        self._file, self._framework, self._name = file, framework, name

    def get_shape(self) -> list[int]:
        """Return the shape, as the header has it."""
        return list(self._file.info(self._name).shape)

    def get_dtype(self) -> str:
        """Return the dtype's name in the header, such as `"F32"`."""
        return self._file.info(self._name).dtype

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401  (what the framework takes and gives)
        """Return part of the tensor, by the framework's own rules; steps must be positive."""
        part = self._file.part(self._name, index, self._framework.part)
        return self._framework.place(part)
