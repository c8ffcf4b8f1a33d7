"""What a language model writes after a document that it has read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from rabtriever.prefix import Prefix, side_by_side

if TYPE_CHECKING:
    from rabtriever.backbone import Backbone

__all__ = ["write_on"]


@torch.inference_mode()
def write_on(backbone: Backbone, prefix: Prefix, ids: Sequence[int], most: int) -> list[int]:
    """Continue a document and what stands after it, by the likeliest token each time.

    Args:
        backbone: The language model that read the document.
        prefix: The document.
        ids: What stands between it and the continuation; at least one token.
        most: The most tokens to write.

    Returns:
        Up to ``most`` ids; the end of text, where the model writes it, is left out.

    Example:
        >>> (prefix,) = teacher.read(["find a sponge"])                                      # doctest: +SKIP
        >>> write_on(teacher.backbone, prefix, teacher.prompt.query_ids("coke, spilled"), 8)   # doctest: +SKIP
        [5345, 314, 28]
    """
    model = backbone.model
    # What the cache holds is not read again, so any id stands for it.
    tokens = torch.tensor([[0] * prefix.length + list(ids)], device=backbone.device)
    settings: Any = copy.deepcopy(model.generation_config)  # typed poorly
    ends = {backbone.tokenizer.eos_token_id, *_several(settings.eos_token_id)} - {None}
    settings.update(
        do_sample=False, num_beams=1, max_new_tokens=most, max_length=None, eos_token_id=sorted(ends) or None
    )
    settings.update(pad_token_id=min(ends, default=0), temperature=None, top_p=None, top_k=None)
    written = model.generate(  # type: ignore[operator]  # transformers types it as a tensor
        tokens,
        attention_mask=torch.ones_like(tokens),
        past_key_values=DynamicCache([(layer[0], layer[1]) for layer in side_by_side([prefix])]),
        generation_config=settings,
    )
    found: list[int] = written[0, tokens.shape[1] :].tolist()
    return found[:-1] if found and found[-1] in ends else found


def _several(value: int | list[int] | None) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]
