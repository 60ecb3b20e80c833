"""Weights that are one: input and output embeddings, encoder and decoder, declared pairs."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger(__name__)

#: Modules within modules: deeper than this, a model contains itself.
_MAX_DEPTH = 500


class TyingMethods(nn.Module):
    """What `PreTrainedModel` knows about weights that are one."""

    config: Any
    base_model_prefix: str
    _tied_weights_keys: list[str] | dict[str, str] | None
    _dynamic_tied_weights_keys: list[str] | None = None

    def tie_weights(self) -> None:
        """Tie what the configuration and the class say is one.

        That is the output embeddings to the input embeddings (unless `tie_word_embeddings` is
        false), the encoder to the decoder (if `tie_encoder_decoder` is true), what a
        `_tied_weights_keys` in the form `{target: source}` says, and whatever a module with a
        method `_tie_weights` ties itself. With `torchscript` in the configuration output embeddings
        get a copy instead.
        """
        if getattr(self.config, "tie_word_embeddings", True):
            self._tie_embeddings()
        config = self.config
        if getattr(config, "is_encoder_decoder", False) and getattr(
            config, "tie_encoder_decoder", False
        ):
            self._tie_halves()
        for module in self.modules():
            if _find(module, "_tie_weights") is not None:
                module._tie_weights()  # type: ignore[operator]

    def _tie_embeddings(self) -> None:
        model: Any = self
        output = model.get_output_embeddings()
        if output is not None:
            self._tie_or_clone_weights(output, model.get_input_embeddings())
        for module in self.modules():
            keys = _find(module, "_tied_weights_keys")
            if isinstance(keys, dict) and getattr(
                _find(module, "config"), "tie_word_embeddings", True
            ):
                tie_declared(module, keys)

    def _tie_halves(self) -> None:
        owner: Any = getattr(self, self.base_model_prefix, self)
        tied = self._tie_encoder_decoder_weights(
            owner.encoder, owner.decoder, self.base_model_prefix, "encoder"
        )
        owner._dynamic_tied_weights_keys = tied

    @staticmethod
    def _tie_encoder_decoder_weights(
        encoder: nn.Module, decoder: nn.Module, base_model_prefix: str, base_encoder_name: str
    ) -> list[str]:
        """Give an encoder the weights of a decoder, where both have them.

        Args:
            encoder: gets the weights.
            decoder: has them. Its cross-attention, which an encoder lacks, is passed over.
            base_model_prefix: what messages call the model.
            base_encoder_name: what names of tied weights begin with.

        Returns:
            Names of the encoder's weights that are tied now.
        """
        return tie_encoder(encoder, decoder, base_model_prefix, base_encoder_name)

    def _tie_or_clone_weights(
        self,
        output_embeddings: Any,  # noqa: ANN401  (modules with a weight)
        input_embeddings: Any,  # noqa: ANN401
    ) -> None:
        """Let output embeddings have the weight of input embeddings; a copy for torchscript.

        A bias of the output is padded with zeros, or cut, to the vocabulary.
        """
        weight = input_embeddings.weight
        is_copied = getattr(self.config, "torchscript", False)
        output_embeddings.weight = nn.Parameter(weight.clone()) if is_copied else weight
        bias = getattr(output_embeddings, "bias", None)
        if bias is not None and bias.shape[0] != output_embeddings.weight.shape[0]:
            wanted = output_embeddings.weight.shape[0] - bias.shape[0]
            bias.data = functional.pad(bias.data, (0, wanted), "constant", 0)
        if hasattr(output_embeddings, "out_features") and hasattr(
            input_embeddings, "num_embeddings"
        ):
            output_embeddings.out_features = input_embeddings.num_embeddings


def _find(module: nn.Module, name: str) -> Any:  # noqa: ANN401
    """Return an attribute that is no module and no tensor; misses cost much in `nn.Module`."""
    return module.__dict__.get(name, getattr(type(module), name, None))


def tie_declared(module: nn.Module, keys: Mapping[str, str]) -> None:
    """Tie parameters of a module as a `{target: source}` says, both names or patterns.

    Raises:
        ValueError: a source that is not there, or not one for each target.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for target, source in keys.items():
        targets, sources = _expand(target, names), _expand(source, names)
        if not targets:  # A part that this model was built without.
            continue
        if not sources or len(targets) % len(sources):
            message = (
                f"_tied_weights_keys of {type(module).__name__}: `{target}` is {targets} and "
                f"`{source}` is {sources}; expected a source for each"
            )
            raise ValueError(message)
        share = len(targets) // len(sources)
        for number, name in enumerate(targets):
            _put(module, name, module.get_parameter(sources[number // share]))


def _expand(pattern: str, names: list[str]) -> list[str]:
    if pattern in names:
        return [pattern]
    matches = re.compile(pattern).fullmatch
    return sorted((name for name in names if matches(name)), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort `h.10` after `h.2`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, key = name.rpartition(".")
    setattr(module.get_submodule(owner), key, parameter)


def declared_ties(module: nn.Module, prefix: str = "") -> list[str]:
    """Return the patterns of names that a model says are tied to others, of all its modules."""
    patterns: list[str] = []
    for name, part in module.named_modules(prefix=prefix):
        for attribute in ("_tied_weights_keys", "_dynamic_tied_weights_keys"):
            keys = _find(part, attribute) or ()
            patterns += [f"{name}.{key}" if name else key for key in keys]
    return patterns


class _Pair(NamedTuple):
    """A module of the decoder and its counterpart in the encoder."""

    decoder: nn.Module
    encoder: nn.Module
    path: str
    depth: int


class _EncoderTies:
    """Walks decoder and encoder side by side.

    Attributes:
        tied: names of weights that are tied.
        left: modules of the encoder without a counterpart.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.tied: list[str] = []
        self.left: list[str] = []

    def tie(self, pair: _Pair) -> None:
        decoder, encoder, path, depth = pair
        if depth > _MAX_DEPTH:
            message = f"`{self._model}{path}`: modules lie {depth} deep; a module contains itself"
            raise ValueError(message)
        if hasattr(decoder, "weight"):
            self._tie_weights(decoder, encoder, path)
            return
        if decoder._modules and not encoder._modules:
            message = (
                f"`{self._model}{path}`: the decoder has modules {list(decoder._modules)} and the "
                "encoder has none: they cannot be tied"
            )
            raise ValueError(message)
        left = dict.fromkeys(encoder._modules)
        for name, other in _counterparts(decoder._modules, encoder._modules):
            below = _Pair(decoder._modules[name], encoder._modules[other], "", depth + 1)  # type: ignore[arg-type]
            self.tie(below._replace(path=f"{path}.{other}"))
            left.pop(other, None)
        if decoder._modules:
            self.left += [f"{self._model}{path}.{name}" for name in left]

    def _tie_weights(self, decoder: nn.Module, encoder: nn.Module, path: str) -> None:
        for key in ("weight", "bias"):
            if hasattr(decoder, key):
                if not hasattr(encoder, key):
                    message = (
                        f"`{self._model}{path}.{key}`: the decoder has it, the encoder lacks it"
                    )
                    raise ValueError(message)
                setattr(encoder, key, getattr(decoder, key))
                self.tied.append(f"{path}.{key}")


def _counterparts(
    decoder: Mapping[str, nn.Module | None], encoder: Mapping[str, nn.Module | None]
) -> Iterator[tuple[str, str]]:
    """Yield names of the decoder, each with that of its counterpart in the encoder.

    In numbered lists of different lengths, modules of a kind that the encoder does not have at
    that place (cross-attention) are passed over.
    """
    shift = 0
    for name, module in decoder.items():
        if not name.isdigit():
            if name in encoder:
                yield name, name
            continue
        other = str(int(name) - shift)
        is_alike = other in encoder and isinstance(module, type(encoder[other]))
        if not is_alike and len(encoder) != len(decoder):
            shift += 1
            continue
        yield name, other


def tie_encoder(encoder: nn.Module, decoder: nn.Module, model: str, begin: str) -> list[str]:
    """Give an encoder the weights of a decoder; see `TyingMethods._tie_encoder_decoder_weights`.

    Raises:
        ValueError: they are built too differently.
    """
    if type(encoder) is not type(decoder):
        logger.info(
            "encoder %s and decoder %s are of different classes: see to it that all weights of "
            "the encoder are initialised",
            type(encoder).__name__,
            type(decoder).__name__,
        )
    ties = _EncoderTies(model)
    ties.tie(_Pair(decoder, encoder, "", 0))
    if ties.left:
        logger.warning("these modules of the encoder are not tied to the decoder: %s", ties.left)
    return [begin + path for path in ties.tied]
