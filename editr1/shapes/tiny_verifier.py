"""Build small verifiers with random weights from the Qwen2.5-VL classes of transformers.

A verifier of the size "base" has about one million parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils.import_utils import is_torchvision_available

from editr1.verifier.model import make_processor, save_verifier
from editr1.verifier.prompt import PromptTemplate

Size = Literal["base", "small", "large"]

SPECIAL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TINY_TEMPLATE: Final = PromptTemplate(
    rules="",
    source_label="",
    request="{instruction}\n{principles}\n",
    principle="{question}",
    separator="\n",
    edited_label="",
    min_pixels=32 * 32,
    max_pixels=64 * 64,
)
"""Template of a short prompt: two images of 32x32 pixels (4 tokens each), the instruction, and one line per question."""


class _Dimensions(NamedTuple):
    hidden: int
    layers: int
    intermediate: int
    vision_hidden: int
    vision_depth: int


_DIMENSIONS: Final[dict[str, _Dimensions]] = {
    "small": _Dimensions(hidden=64, layers=2, intermediate=160, vision_hidden=64, vision_depth=2),
    "base": _Dimensions(hidden=128, layers=3, intermediate=320, vision_hidden=128, vision_depth=2),
    "large": _Dimensions(hidden=192, layers=4, intermediate=512, vision_hidden=128, vision_depth=3),
}
_HEAD_DIM: Final = 32  # This is the smallest size that vLLM's attention supports on CPUs.
_CONTEXT: Final = 4096


def build_tiny_verifier(
    out: Path,
    seed: int = 0,
    size: Size = "base",
    *,
    words: Sequence[str] | None = None,
    template: PromptTemplate = TINY_TEMPLATE,
) -> Path:
    """Create a small verifier with random weights, save it to the folder ``out``, and return ``out``.

    transformers' Auto classes, ``load_verifier`` and vLLM can load the folder.

    Args:
        out: folder to write.
        seed: random seed for the weights.
        size: small, base or large.
        words: phrases that are single tokens; by default those of ``vocabulary.model_words``. Other text is tokenized
            into bytes.
        template: prompt template to save with the model.
    """
    tokenizer = build_tokenizer(words)
    image_processor = _image_processor(template)
    processor = make_processor(image_processor, tokenizer, CHAT_TEMPLATE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer, size))
    generation = model.generation_config
    generation.eos_token_id = [tokenizer.eos_token_id]
    generation.pad_token_id = tokenizer.pad_token_id
    generation.suppress_tokens = [
        token for token in tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) if token != tokenizer.eos_token_id
    ]
    return save_verifier(model, processor, template, out)


def build_tokenizer(words: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer: all bytes, then the special tokens, then one token per phrase."""
    if words is None:
        from editr1.shapes.vocabulary import model_words

        words = model_words()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    chat_words = [f"{role}\n" for role in ("system", "user", "assistant")]
    backend.add_tokens(
        [AddedToken(word, normalized=False) for word in dict.fromkeys([*chat_words, *words]) if len(word.encode()) > 1]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast, size: Size = "base") -> Qwen2_5_VLConfig:
    """Return the configuration of the model. One image token represents 16x16 pixels (patch size 8, merge size 2)."""
    dimensions = _DIMENSIONS[size]
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    heads = dimensions.hidden // _HEAD_DIM
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": dimensions.hidden,
            "intermediate_size": dimensions.intermediate,
            "num_hidden_layers": dimensions.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "max_position_embeddings": _CONTEXT,
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": dimensions.vision_depth,
            "hidden_size": dimensions.vision_hidden,
            "intermediate_size": 2 * dimensions.vision_hidden,
            "num_heads": dimensions.vision_hidden // _HEAD_DIM,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": dimensions.hidden,
            "fullatt_block_indexes": [dimensions.vision_depth - 1],
            "initializer_range": 0.05,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        dtype="float32",
    )


def _image_processor(template: PromptTemplate) -> object:
    settings = {
        "patch_size": 8,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": template.min_pixels, "longest_edge": template.max_pixels},
    }
    if is_torchvision_available():
        from transformers import Qwen2VLImageProcessor

        return Qwen2VLImageProcessor(**settings)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(**settings)
