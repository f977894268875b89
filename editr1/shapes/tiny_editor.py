"""Build small, untrained editors from the model classes of diffusers, and save them as pipeline folders.

``FluxKontextPipeline.from_pretrained`` loads the folder of ``build_tiny_flux_kontext``, and
``QwenImageEditPipeline.from_pretrained`` loads the folder of ``build_tiny_qwen_image_edit``. Both editors can
tokenize any text, because their vocabularies contain all 256 bytes. The phrases of the shapes dataset are single
tokens.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
)
from transformers.utils.import_utils import is_torchvision_available

from editr1.verifier.model import make_processor, save_processor

T5_LENGTH = 8
"""Length in tokens to which all prompts are padded in the training of the base editor.

It is the ``model_max_length`` of the T5 tokenizer. Flux also attends to padding tokens, so sampling must use the same
length, that is, ``max_sequence_length=min(512, tokenizer_2.model_max_length)``.
"""

CELL = 16
"""Side length in pixels of the square that one Flux token represents: 8 (VAE) x 2 (packing)."""

QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def tiny_flux_kontext(seed: int, *, words: Sequence[str] | None = None) -> FluxKontextPipeline:
    """Return an untrained Flux Kontext editor in float32, with about 2.3 million parameters.

    The VAE reduces each side by a factor of 8 and has 4 latent channels, scaling factor 1 and shift factor 0. One
    transformer token represents a cell of 16 x 16 pixels and has 16 channels. The transformer has no guidance embedding.
    The scheduler is linear in time (shift 1, no dynamic shifting). The state of torch's global random generator does not
    change.

    Args:
        seed: random seed for the weights.
        words: phrases that are single tokens; by default those of ``vocabulary.model_words``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip_tokenizer, t5_tokenizer = _clip_tokenizer(words), _t5_tokenizer(words)
        vae = _flux_vae()
        text_encoder = _clip_text_encoder(clip_tokenizer)
        text_encoder_2 = _t5_text_encoder(t5_tokenizer)
        transformer = _flux_transformer()
    pipeline = FluxKontextPipeline(
        scheduler=_linear_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )
    return _set_eval_mode(pipeline)


def tiny_qwen_image_edit(seed: int, *, words: Sequence[str] | None = None) -> QwenImageEditPipeline:
    """Return an untrained Qwen-Image-Edit editor in float32, with less than 1 million parameters.

    The VAE reduces each side by a factor of 8 and has 4 latent channels. Its ``latents_mean`` and ``latents_std``
    differ from the neutral values 0 and 1. A token of the text encoder's vision tower represents 16 x 16 pixels.
    Without torchvision, the pipeline's processor has no video processor. The state of torch's global random generator
    does not change.

    Args:
        seed: random seed for the weights.
        words: phrases that are single tokens; by default those of ``vocabulary.model_words``.
    """
    tokenizer = _qwen_tokenizer(words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[-0.3, 0.2, 0.0, 0.5],
            latents_std=[1.5, 0.8, 1.0, 2.0],
        )
        transformer = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=64,
            axes_dims_rope=(8, 12, 12),
        )
        text_encoder = Qwen2_5_VLForConditionalGeneration(_qwen_vl_config(tokenizer))
    pipeline = QwenImageEditPipeline(
        scheduler=_linear_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=_qwen_processor(tokenizer),
        transformer=transformer,
    )
    return _set_eval_mode(pipeline)


def build_tiny_flux_kontext(out: Path, seed: int, *, words: Sequence[str] | None = None) -> Path:
    """Write the pipeline of :func:`tiny_flux_kontext` to the folder ``out`` and return ``out``."""
    tiny_flux_kontext(seed, words=words).save_pretrained(out)
    return out


def build_tiny_qwen_image_edit(out: Path, seed: int, *, words: Sequence[str] | None = None) -> Path:
    """Write the pipeline of :func:`tiny_qwen_image_edit` to the folder ``out`` and return ``out``.

    The folder has the same files as Qwen/Qwen-Image-Edit, whether or not torchvision is installed. Without torchvision,
    diffusers cannot build Qwen2VLProcessor. In this case, load the folder with
    ``from_pretrained(out, processor=load_processor(...))``.
    """
    pipeline = tiny_qwen_image_edit(seed, words=words)
    pipeline.save_pretrained(out)
    shutil.rmtree(out / "processor")
    save_processor(pipeline.processor, out / "processor")
    index = json.loads((out / "model_index.json").read_text(encoding="utf-8"))
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return out


def _flux_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=True,
        use_post_quant_conv=True,
        mid_block_add_attention=False,
    )


def _clip_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            projection_dim=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5_text_encoder(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=1,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _flux_transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=48,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


def _set_eval_mode(pipeline: Any) -> Any:
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipeline


def _linear_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False)


def _byte_alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _add_words(tokenizer: Any, words: Sequence[str] | None) -> Any:
    """Add a token for each phrase to the tokenizer. Phrases of one byte are skipped, because all bytes are tokens."""
    if words is None:
        from editr1.shapes.vocabulary import model_words

        words = model_words()
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False, special=False) for word in words if len(word.encode()) > 1]
    )
    return tokenizer


def _clip_tokenizer(words: Sequence[str] | None) -> CLIPTokenizer:
    """Return a CLIP tokenizer without merges.

    Each byte is a token. A byte at the end of a word has a different id.
    """
    alphabet = _byte_alphabet()
    symbols = ["<|startoftext|>", "<|endoftext|>", *alphabet, *(letter + "</w>" for letter in alphabet)]
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    return _add_words(CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77), words)


def _t5_tokenizer(words: Sequence[str] | None) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the special tokens of T5 (pad 0, end 1, unknown 2). It appends the end token.

    transformers' T5Tokenizer is a Unigram model that is always loaded without byte fallback, so it would map unseen
    characters to the unknown token.
    """
    symbols = ["<pad>", "</s>", "<unk>", *_byte_alphabet()]
    backend = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=T5_LENGTH,
    )
    return _add_words(tokenizer, words)


def _qwen_tokenizer(words: Sequence[str] | None) -> Qwen2Tokenizer:
    vocab = {symbol: index for index, symbol in enumerate([*QWEN_SPECIAL_TOKENS, *_byte_alphabet()])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], model_max_length=4096)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIAL_TOKENS])
    return _add_words(tokenizer, words)


def _qwen_vl_config(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _qwen_processor(tokenizer: Qwen2Tokenizer) -> Any:
    settings: dict[str, Any] = {
        "patch_size": 8,
        "merge_size": 2,
        "size": {"shortest_edge": CELL * CELL, "longest_edge": 256 * 256},
    }
    if is_torchvision_available():
        from transformers import Qwen2VLImageProcessor as ImageProcessor
    else:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil as ImageProcessor,
        )
    return make_processor(ImageProcessor(**settings), tokenizer, "")
