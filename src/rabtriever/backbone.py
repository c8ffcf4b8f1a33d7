"""One causal language model: hidden states, document prefixes and the answer rows of its head.

The blocks ``M`` turn ids into hidden states after the final norm; the head ``H`` turns states into logits. Attention is
causal, so ``M(D,Q)[:L_D] == M(D)`` (Eq. 8): a document's keys and values are computed once and serve every query.

States leave this module as float32 on the CPU, whatever the model computes in, since all that follows is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from rabtriever.batches import common_start, continuation_batches, token_batches
from rabtriever.errors import InputError
from rabtriever.head import AnswerRows
from rabtriever.numerics import DType, bound_kernel_cache, choose_dtype
from rabtriever.prefix import Prefix, side_by_side

__all__ = ["Backbone"]

_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Padded tokens a forward pass: on a CPU what its caches hold (a tenth faster than 8,192), on a GPU what fills it."""


class Backbone:
    """A causal language model of any Hugging Face family and its tokenizer.

    Args:
        model: A causal LM with a language head.
        tokenizer: Its tokenizer.
        batch_tokens: Padded tokens a forward pass; chosen by device when left out.

    Example:
        >>> backbone = Backbone.load(Path("model-folder"))       # doctest: +SKIP
        >>> backbone.last_states([[1, 2, 3], [4, 5]]).shape      # doctest: +SKIP
        torch.Size([2, 576])
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int | None = None
    ) -> None:
        bound_kernel_cache()
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens or _BATCH_TOKENS.get(self.device.type, 2048)
        self.model.train(False)

    @classmethod
    def load(cls, folder: Path, dtype: DType = "auto", device: str = "auto") -> Backbone:
        """Load a folder in Hugging Face layout with safetensors.

        Args:
            folder: Where config, weights and tokenizer are.
            dtype: What to compute in; ``auto`` asks the processor.
            device: A torch device; ``auto`` takes CUDA where there is one.

        Raises:
            InputError: If the folder is not a causal LM that transformers can load.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=choose_dtype(dtype, device), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{folder} does not load as a causal language model: {reason}",
                hint="give a folder that holds config.json, *.safetensors and a tokenizer",
            ) from error
        return cls(model.to(device), tokenizer)  # type: ignore[arg-type]  # transformers wraps it without types

    @property
    def blocks(self) -> nn.Module:
        """The model without its head, ``M``."""
        return self.model.base_model

    @property
    def hidden_size(self) -> int:
        """``d``."""
        return int(self._text_config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return next(self.blocks.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.blocks.parameters()).device

    @property
    def positions(self) -> int | None:
        """The most tokens the model was made for, where its configuration says so."""
        value = getattr(self._text_config, "max_position_embeddings", None)
        return None if value is None else int(value)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, from the lowest to the highest."""
        count = self._text_config.num_hidden_layers
        for module in self.blocks.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        raise InputError(f"no list of {count} decoder layers found in {type(self.model).__name__}")

    def answer_rows(self, true_id: int, false_id: int) -> AnswerRows:
        """The head's rows for the two answers, in float32.

        A soft-cap (Gemma 2) is left out: the score is defined on the uncapped logits, for teacher and student alike.
        """
        head = self._head
        ids = [true_id, false_id]
        weight = head.weight.detach()[ids].float().cpu()
        bias = torch.zeros(2) if head.bias is None else head.bias.detach()[ids].float().cpu()
        return AnswerRows(weight, bias, self._logit_scale)

    def full_logits(self, states: Tensor) -> Tensor:
        """The whole head on hidden states ``(n, d)``: logits ``(n, V)``, before any soft-cap."""
        head = self._head
        logits: Tensor = head(states.to(head.weight.dtype)).float()
        return self._logit_scale * logits

    @torch.inference_mode()
    def last_states(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states at the last position of each sequence: ``(n, d)`` float32, in the order given.

        What many sequences start with, such as a chat template's opening, is read once.

        Args:
            ids: Sequences of at least one token.
        """
        out = torch.empty(len(ids), self.hidden_size)
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        if (start := common_start(ids)) and (prefix := self._start(ids[0][:start])):
            out[order] = self.last_states_after([prefix] * len(ids), [ids[row][start:] for row in order])
            return out
        for batch in token_batches([len(ids[row]) for row in order], self.batch_tokens):
            rows = [order[i] for i in batch]
            inputs = self.pad([ids[row] for row in rows])
            out[rows] = self.forward_last(**inputs).float().cpu()
        return out

    def pad(self, ids: Sequence[Sequence[int]], side: Literal["left", "right"] = "right") -> dict[str, Tensor]:
        """Pad to one length: ``input_ids``, ``attention_mask`` and ``position_ids``, each ``(n, L)``."""
        longest = max(map(len, ids))
        shape = (len(ids), longest)
        tokens, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for row, sequence in enumerate(ids):
            span = slice(0, len(sequence)) if side == "right" else slice(longest - len(sequence), longest)
            tokens[row, span] = torch.tensor(sequence, dtype=torch.long)
            mask[row, span] = 1
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        batch = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions}
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def forward_last(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """The state at each row's last real token, ``(n, d)``, with gradients where they are on."""
        mask = None if bool(attention_mask.all()) else attention_mask
        hidden = self.blocks(
            input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = (attention_mask * places).argmax(1)
        picked: Tensor = hidden[torch.arange(len(last), device=last.device), last]
        return picked

    def forward_alike(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """The state at each sequence's last token, ``(n, d)``, with gradients where they are on.

        What all of them start with is read once, and its gradients are those of all of them.
        """
        start = common_start(ids)
        if not start:
            return self.forward_last(**self.pad(ids))
        _, first = self._read([ids[0][:start]])
        # Layer by layer: the gradient of a slice of one large tensor would be as large as that tensor.
        shape = (len(ids), -1, -1, -1)
        cache = DynamicCache([(keys.expand(shape), values.expand(shape)) for keys, values in self._pairs(first)])
        return self._last([row[start:] for row in ids], cache, torch.full((len(ids),), start, device=self.device))

    @torch.inference_mode()
    def prefixes(self, ids: Sequence[Sequence[int]]) -> list[Prefix]:
        """Read documents: keys, values and ``e_D`` of each, in the order given.

        Raises:
            InputError: If the architecture keeps no keys and values for each token.
        """
        out: dict[int, Prefix] = {}
        start = common_start(ids)
        prefix = self.prefixes([ids[0][:start]])[0] if start else None
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        for batch in token_batches([len(ids[row]) - start for row in order], self.batch_tokens):
            rows = [order[i] for i in batch]
            before = self._behind([prefix] * len(rows)) if prefix else ()
            hidden, cache = self._read([ids[row][start:] for row in rows], *before)
            states = torch.stack([torch.stack(pair) for pair in self._pairs(cache)])
            for place, row in enumerate(rows):
                length = len(ids[row])
                last = hidden[place, length - start - 1].float().cpu()
                out[row] = Prefix(states[:, :, place, :, :length].clone(), last)
        return [out[row] for row in range(len(ids))]

    @torch.inference_mode()
    def last_states_after(self, prefixes: Sequence[Prefix], ids: Sequence[Sequence[int]]) -> Tensor:
        """States at the last position of each continuation of a prefix: ``M(D,Q)[-1]``, ``(n, d)`` float32.

        Rows go through in the order given; callers sort them so that neighbours have similar lengths.
        """
        out = torch.empty(len(ids), self.hidden_size)
        for rows in self._continuations(prefixes, ids):
            found = self._last([ids[r] for r in rows], *self._behind([prefixes[r] for r in rows]))
            out[rows] = found.float().cpu()
        return out

    @torch.inference_mode()
    def states(self, ids: Sequence[Sequence[int]], prefixes: Sequence[Prefix] | None = None) -> list[Tensor]:
        """States at every position of each sequence, ``(L, d)`` float32; behind its prefix, where there are some.

        Rows go through in the order given, as for `last_states_after`.
        """
        out: list[Tensor] = []
        lengths = [len(sequence) for sequence in ids]
        batches = self._continuations(prefixes, ids) if prefixes else token_batches(lengths, self.batch_tokens)
        for rows in batches:
            before = self._behind([prefixes[r] for r in rows]) if prefixes else ()
            hidden, _ = self._read([ids[r] for r in rows], *before)
            out += [states[: lengths[row]].float().cpu() for row, states in zip(rows, hidden, strict=True)]
        return out

    def _continuations(self, prefixes: Sequence[Prefix], ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        before, lengths = [prefix.length for prefix in prefixes], [len(sequence) for sequence in ids]
        window = getattr(self._text_config, "sliding_window", None)
        return continuation_batches(before, lengths, self.batch_tokens, window)

    def _behind(self, prefixes: Sequence[Prefix]) -> tuple[DynamicCache, Tensor]:
        """Prefixes in one batch: their keys and values, and their lengths."""
        cache = DynamicCache([(layer[0], layer[1]) for layer in side_by_side(prefixes)])
        return cache, torch.tensor([prefix.length for prefix in prefixes], device=self.device)

    def _last(self, ids: Sequence[Sequence[int]], cache: DynamicCache, lengths: Tensor) -> Tensor:
        hidden, _ = self._read(ids, cache, lengths)
        last = torch.tensor([len(sequence) - 1 for sequence in ids], device=self.device)
        picked: Tensor = hidden[torch.arange(len(ids), device=self.device), last]
        return picked

    def _read(
        self, ids: Sequence[Sequence[int]], cache: DynamicCache | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, DynamicCache]:
        """All hidden states of sequences, each behind what the cache holds of so many tokens, and the longer cache."""
        inputs = self.pad(ids)
        if lengths is not None:
            before = torch.arange(int(lengths.max()), device=self.device)[None] < lengths[:, None]
            inputs["attention_mask"] = torch.cat([before.long(), inputs["attention_mask"]], dim=1)
            inputs["position_ids"] = inputs["position_ids"] + lengths[:, None]
        elif bool(inputs["attention_mask"].all()):
            del inputs["attention_mask"]
        cache = DynamicCache() if cache is None else cache
        return self.blocks(**inputs, past_key_values=cache, use_cache=True).last_hidden_state, cache

    def _start(self, ids: Sequence[int]) -> Prefix | None:
        """What sequences have in common, read; None where the architecture keeps no keys and values for each token."""
        try:
            return self.prefixes([ids])[0]
        except InputError:
            return None

    def _pairs(self, cache: DynamicCache) -> list[tuple[Any, Any]]:
        """Keys and values, layer by layer."""
        pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
        shapes = {None if tensor is None else tensor.shape for pair in pairs for tensor in pair}
        if None in shapes or len(shapes) != 1:
            raise InputError(
                f"{type(self.model).__name__} does not keep the same keys and values in every layer",
                hint="use a decoder with ordinary attention in all layers, such as Llama, Qwen, Gemma or GPT-2",
            )
        return pairs

    @property
    def _text_config(self) -> Any:
        return self.model.config.get_text_config(decoder=True)

    @property
    def _head(self) -> nn.Linear:
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if not isinstance(head, nn.Module) or not hasattr(head, "weight"):
            raise InputError(f"{type(self.model).__name__} has no linear language head")
        return head  # type: ignore[return-value]

    @property
    def _logit_scale(self) -> float:
        """Cohere multiplies its logits by ``logit_scale``; Granite divides them by ``logits_scaling``."""
        config = self._text_config
        return float(getattr(config, "logit_scale", 1.0) or 1.0) / float(getattr(config, "logits_scaling", 1.0) or 1.0)
