"""Embeddings of a model: found, replaced, resized with the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from torch import nn

from windlass.torch.embeddings import check_kind, count_padded, resize_embeddings, resize_lm_head

if TYPE_CHECKING:
    from collections.abc import Callable


class VocabularyMethods(nn.Module):
    """What `PreTrainedModel` does about its embeddings."""

    config: Any
    base_model_prefix: str
    base_model: Any
    _init_weights: Callable[[nn.Module], None]
    tie_weights: Callable[[], None]

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that maps tokens to hidden states: that of the base model.

        Raises:
            NotImplementedError: the base model does not say which one it is.
        """
        base = self.base_model
        if base is self:
            self._must_override("get_input_embeddings")
        found: nn.Module = base.get_input_embeddings()
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the module that maps tokens to hidden states.

        Raises:
            NotImplementedError: the base model does not say which one it is.
        """
        base = self.base_model
        if base is self:
            self._must_override("set_input_embeddings")
        base.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the module that maps hidden states to tokens, or `None`; models override this."""
        return None

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the module that maps hidden states to tokens; models that have one override this.

        Raises:
            NotImplementedError: the model does not.
        """
        del new_embeddings
        self._must_override("set_output_embeddings")

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,  # noqa: FBT001, FBT002  (the signature that it replaces)
    ) -> nn.Module:
        """Give the model another vocabulary; output embeddings follow, tied or not.

        `config.vocab_size` is set.

        Args:
            new_num_tokens: number of tokens; `None` keeps it.
            pad_to_multiple_of: what the number is rounded up to a multiple of.
            mean_resizing: draw new rows around the mean of the old ones; `False` leaves them to
                `_init_weights`.

        Returns:
            The input embeddings.

        Raises:
            InvalidResize: `pad_to_multiple_of` is no positive integer, or embeddings of a kind that
                the model has to resize itself.
        """
        embeddings = self._resize_token_embeddings(
            new_num_tokens, pad_to_multiple_of, mean_resizing
        )
        if new_num_tokens is None and pad_to_multiple_of is None:
            return embeddings
        size: int = embeddings.weight.shape[0]  # type: ignore[assignment, index]
        self.config.get_text_config().vocab_size = size
        self.vocab_size = size
        self.tie_weights()
        return embeddings

    def _resize_token_embeddings(
        self,
        new_num_tokens: int | None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,  # noqa: FBT001, FBT002
    ) -> nn.Module:
        old: Any = self.get_input_embeddings()
        trains = old.weight.requires_grad
        if new_num_tokens is not None or pad_to_multiple_of is not None:
            wanted = old.weight.shape[0] if new_num_tokens is None else new_num_tokens
            self._check_output(count_padded(wanted, pad_to_multiple_of))
        new = self._get_resized_embeddings(old, new_num_tokens, pad_to_multiple_of, mean_resizing)
        new.requires_grad_(trains)
        self.set_input_embeddings(new)
        if new_num_tokens is not None or pad_to_multiple_of is not None:
            self._resize_output(new.weight.shape[0], mean_resizing=mean_resizing)
        return self.get_input_embeddings()

    def _check_output(self, size: int) -> None:
        """Raise for output embeddings that cannot be resized, before the input embeddings are."""
        head: Any = self._untied_output()
        resizes_itself = (
            type(self)._get_resized_lm_head is not VocabularyMethods._get_resized_lm_head
        )
        if head is None or resizes_itself or isinstance(head, nn.Embedding):
            return
        if head.weight.shape[0] != size:
            check_kind("lm_head", head, nn.Linear)

    def _untied_output(self) -> nn.Module | None:
        """Return output embeddings that are not tied; `tie_weights` sees to the others."""
        is_tied = getattr(self.config, "tie_word_embeddings", True)
        return None if is_tied else self.get_output_embeddings()

    def _resize_output(self, size: int, *, mean_resizing: bool) -> None:
        old: Any = self._untied_output()
        if old is None:
            return
        is_embedding = isinstance(old, nn.Embedding)
        resize = self._get_resized_embeddings if is_embedding else self._get_resized_lm_head
        trains = old.weight.requires_grad
        new: nn.Module = resize(old, size, mean_resizing=mean_resizing)
        new.requires_grad_(trains)
        self.set_output_embeddings(new)

    def _get_resized_embeddings(
        self,
        old_embeddings: nn.Embedding,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,  # noqa: FBT001, FBT002
    ) -> nn.Embedding:
        """Resize embeddings; see `windlass.torch.embeddings.resize_embeddings`."""
        return resize_embeddings(
            old_embeddings,
            new_num_tokens,
            pad_to_multiple_of,
            mean_resizing=mean_resizing,
            initialise=self._init_weights,
        )

    def _get_resized_lm_head(
        self,
        old_lm_head: nn.Linear,
        new_num_tokens: int | None = None,
        transposed: bool = False,  # noqa: FBT001, FBT002
        mean_resizing: bool = True,  # noqa: FBT001, FBT002
    ) -> nn.Linear:
        """Resize an output layer; see `windlass.torch.embeddings.resize_lm_head`."""
        return resize_lm_head(
            old_lm_head,
            new_num_tokens,
            transposed,
            mean_resizing=mean_resizing,
            initialise=self._init_weights,
        )

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Give the model another number of positions; models that can override this.

        Raises:
            NotImplementedError: the model cannot.
        """
        del new_num_position_embeddings
        self._must_override("resize_position_embeddings")

    def get_position_embeddings(self) -> nn.Module | tuple[nn.Module, ...]:
        """Return the embeddings of positions; models that have them override this.

        Raises:
            NotImplementedError: the model does not say.
        """
        self._must_override("get_position_embeddings")

    def _must_override(self, method: str) -> NoReturn:
        message = f"{type(self).__name__} does not say how: it should override `{method}`"
        raise NotImplementedError(message)
