"""Random language models of many families, small enough to build in a moment, with a tokenizer made on the fly."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",  # sliding window in every layer
    "gemma2",  # soft-caps, sliding window in every other layer, embeddings scaled
    "gemma3",  # sliding window in two layers of three, two rotary bases
    "phi3",  # fused projections
    "olmo2",  # norms after the blocks
    "gpt_neox",  # parallel residual, partial rotary
    "gpt2",  # learned positions, Conv1D
    "cohere",  # logit_scale
    "granite",  # logits_scaling
    "phi",  # a head with a bias
)
"""Every family here, with what its tests are for where it is not plain."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WINDOW = 16
"""The sliding window of the families that have one: shorter than any prompt."""
POSITIONS = 2048

_TEXT = [
    "Document: find a sponge Query: I spilled my coke on the table, what now?",
    "Can Query be appropriately responded with Document? If the answer is true, choose <T>; otherwise, choose <F>.",
    "The cat knocked over my juice; bring me something to drink from the kitchen, please.",
]


@cache
def _trained_vocabulary() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return tokenizer.to_str()


def tiny_tokenizer(*, chat: bool = True, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 380 tokens; ``bos`` lets it put ``<s>`` before a text, as many base models' do."""
    tokenizer = Tokenizer.from_str(_trained_vocabulary())
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def tiny_model(
    family: str = "llama", *, hidden: int = 32, layers: int = 3, seed: int = 0, vocabulary: int = 380
) -> PreTrainedModel:
    """A random model in float32 whose logits differ clearly from token to token and from text to text."""
    torch.manual_seed(seed)
    config_class, model_class = _classes(family)
    model = model_class(config_class(**_settings(family, hidden, layers, vocabulary)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases begin at one and zero: random ones show who forgets them
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.generation_config = transformers.GenerationConfig()
    return model.eval()


def tiny_model_folder(
    folder: Path,
    family: str = "llama",
    *,
    chat: bool = True,
    bos: bool = False,
    hidden: int = 32,
    layers: int = 3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Save a random model of a family and its tokenizer, as safetensors in Hugging Face layout.

    Args:
        folder: Where to; made if it is missing.
        family: One of :data:`FAMILIES`.
        chat: Whether the tokenizer has a chat template.
        bos: Whether the tokenizer puts ``<s>`` before a text.
        hidden: The width, a multiple of 8.
        layers: Decoder layers.
        dtype: The format of the saved weights.
        seed: Of the weights.
    """
    model = tiny_model(family, hidden=hidden, layers=layers, seed=seed)
    model.to(dtype).save_pretrained(folder)
    tiny_tokenizer(chat=chat, bos=bos).save_pretrained(folder)
    return folder


def _classes(family: str) -> tuple[Any, Any]:
    stem = {
        "llama": "Llama",
        "qwen2": "Qwen2",
        "qwen3": "Qwen3",
        "mistral": "Mistral",
        "gemma2": "Gemma2",
        "gemma3": "Gemma3",
        "phi3": "Phi3",
        "olmo2": "Olmo2",
        "gpt_neox": "GPTNeoX",
        "gpt2": "GPT2",
        "cohere": "Cohere",
        "granite": "Granite",
        "phi": "Phi",
    }[family]
    config = getattr(transformers, "Gemma3TextConfig" if family == "gemma3" else f"{stem}Config")
    return config, getattr(transformers, "GPT2LMHeadModel" if family == "gpt2" else f"{stem}ForCausalLM")


def _settings(family: str, hidden: int, layers: int, vocabulary: int) -> dict[str, Any]:
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    if family == "gpt2":
        return common | {"n_embd": hidden, "n_layer": layers, "n_head": 4, "n_positions": POSITIONS}
    common |= {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
    }
    if family == "gpt_neox":
        return common
    common["num_key_value_heads"] = 2
    full, sliding = "full_attention", "sliding_attention"
    extra: dict[str, dict[str, Any]] = {
        "qwen2": {"tie_word_embeddings": True},
        "qwen3": {"head_dim": 16},
        "mistral": {"sliding_window": WINDOW},
        "gemma2": {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "layer_types": [sliding if i % 2 == 0 else full for i in range(layers)],
            "final_logit_softcapping": 5.0,
            "attn_logit_softcapping": 3.0,
        },
        "gemma3": {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "layer_types": [full if i % 3 == 1 else sliding for i in range(layers)],
        },
        "cohere": {"logit_scale": 0.25},
        "granite": {
            "logits_scaling": 4.0,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.3,
        },
    }
    return common | extra.get(family, {})
