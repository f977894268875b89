"""The ``transformers`` engine, which runs a verifier in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from PIL.Image import Image
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from editr1.data.rules import length_fault
from editr1.serving.engines.base import EngineError, Generation, InvalidChat, Sampling
from editr1.verifier.chat import Chat
from editr1.verifier.model import DType, folder_digest, load_verifier
from editr1.verifier.prompt import PromptTemplate

log = logging.getLogger("editr1.serving")


class TransformersEngine:
    """Engine that generates traces with ``model.generate`` in left-padded batches of at most ``max_batch_size`` traces.

    Decoding is greedy at temperature 0. Control tokens other than end-of-sequence tokens are suppressed. The
    generation settings of the checkpoint (repetition penalty, top-k) are ignored; only the settings of the request
    apply. ``processor`` must pad on the left, as ``load_verifier`` configures it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        template: PromptTemplate,
        *,
        model_digest: str,
        max_batch_size: int = 64,
    ) -> None:
        self.model_digest = model_digest
        self.template = template
        self._model: Any = model
        self._processor: Any = processor
        self._tokenizer: Any = self._processor.tokenizer
        self._max_batch = max_batch_size
        self._ends = _end_tokens(model, self._tokenizer)
        config: Any = model.config
        self._image_token = int(config.image_token_id)
        self._context = int(config.get_text_config().max_position_embeddings)
        self._suppressed = sorted(set(self._tokenizer.all_special_ids) - set(self._ends)) or None

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str = "auto",
        dtype: DType = "auto",
        model_digest: str | None = None,
        max_batch_size: int = 64,
    ) -> Self:
        """Load a verifier from a folder or the Hugging Face hub.

        If ``model_digest`` is None, it is computed from the files of the folder, or is ``hub:<name>`` for a hub model.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if model_digest is None:
            model_digest = folder_digest(name) if Path(name).is_dir() else f"hub:{name}"
        model, processor, template = load_verifier(name, dtype, device)
        return cls(model, processor, template, model_digest=model_digest, max_batch_size=max_batch_size)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        """Generate traces; see :meth:`Engine.generate`. If a prompt exceeds the model's context, only its chat fails."""
        images = self._process_images(chats)
        prompts = [self._tokens(chat, images) for chat in chats]
        faults = [length_fault(len(tokens), self._context, reserved=1) for tokens in prompts]
        answers: list[list[Generation] | EngineError] = [InvalidChat(f"the prompt {f}") if f else [] for f in faults]
        valid = [index for index, answer in enumerate(answers) if not isinstance(answer, EngineError)]
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        guard = nullcontext() if sampling.seed is None else torch.random.fork_rng(devices)
        with guard, torch.inference_mode():
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            for copies, group in self._batches(valid, prompts, sampling):
                inputs = self._inputs([chats[i] for i in group], [prompts[i] for i in group], images)
                traces = self._generate(inputs, sampling, copies)
                for row, index in enumerate(group):
                    answer = answers[index]
                    assert isinstance(answer, list)
                    answer += [
                        Generation(
                            text=text, prompt_tokens=len(prompts[index]), completion_tokens=count, problem=problem
                        )
                        for text, count, problem in traces[row * copies : (row + 1) * copies]
                    ]
        return answers

    def close(self) -> None:
        """Release the model."""
        self._model = None

    def _process_images(self, chats: Sequence[Chat]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Return the patches and the patch grid ``[1, 3]`` of each distinct image, keyed by ``id(image)``."""
        distinct: dict[int, Image] = {id(image): image for chat in chats for image in chat.images}
        if not distinct:
            return {}
        out = self._processor.image_processor(images=list(distinct.values()), return_tensors="pt")
        grids = out["image_grid_thw"]
        patches = out["pixel_values"].split(grids.prod(dim=1).tolist())
        return {key: (patches[i], grids[i : i + 1]) for i, key in enumerate(distinct)}

    def _tokens(self, chat: Chat, images: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> list[int]:
        """Return the token ids of a prompt. Each image placeholder is repeated once per merged patch of its image."""
        text = self._processor.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True)
        merge = self._processor.image_processor.merge_size**2
        lengths = [int(images[id(image)][1].prod()) // merge for image in chat.images]
        tokens: list[int] = []
        for token in self._tokenizer(text)["input_ids"]:
            tokens += [token] * (lengths.pop(0) if token == self._image_token and lengths else 1)
        return tokens

    def _batches(
        self, valid: list[int], prompts: Sequence[list[int]], sampling: Sampling
    ) -> Iterator[tuple[int, list[int]]]:
        """Group chats into batches as :func:`_group_chats` does, but put each long prompt into a separate batch.

        In a batch with a long prompt, the other prompts would be padded to its length, and their traces would be
        truncated. A prompt is long if the remaining space for the trace is less than half of the context and less
        than ``max_tokens`` tokens.
        """
        required = min(sampling.max_tokens, self._context // 2)
        short = [index for index in valid if len(prompts[index]) + required <= self._context]
        yield from _group_chats(short, sampling.num_traces, self._max_batch)
        for index in valid:
            if index not in short:
                yield from _group_chats([index], sampling.num_traces, self._max_batch)

    def _inputs(
        self,
        chats: Sequence[Chat],
        prompts: Sequence[list[int]],
        images: dict[int, tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        longest = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": ((ids == self._image_token) & (mask == 1)).to(torch.int32),
        }
        used = [images[id(image)] for chat in chats for image in chat.images]
        if used:
            inputs["pixel_values"] = torch.cat([patches for patches, _ in used]).to(self._model.dtype)
            inputs["image_grid_thw"] = torch.cat([grid for _, grid in used])
        return {key: value.to(self._model.device) for key, value in inputs.items()}

    def _generate(self, inputs: dict[str, torch.Tensor], sampling: Sampling, copies: int) -> list[tuple[str, int, str]]:
        """Generate ``copies`` traces per prompt, and return the text, the number of tokens and the problem of each trace.

        The traces are in the order of the prompts. The problem is empty unless the trace is truncated.
        """
        start = inputs["input_ids"].shape[1]
        greedy = sampling.temperature == 0
        config = GenerationConfig(
            max_new_tokens=min(sampling.max_tokens, self._context - start),
            do_sample=not greedy,
            temperature=1.0 if greedy else sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            top_k=None if greedy else 0,
            num_return_sequences=copies,
            suppress_tokens=self._suppressed,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        rows = self._model.generate(**inputs, generation_config=config)[:, start:].tolist()
        kept, problems = [], []
        for row in rows:
            end = next((i for i, token in enumerate(row) if token in self._ends), None)
            kept.append(row if end is None else row[: end + 1])
            problems.append(f"the trace was cut off at max_tokens = {config.max_new_tokens}" if end is None else "")
        texts = self._tokenizer.batch_decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [(text, len(row), problem) for text, row, problem in zip(texts, kept, problems, strict=True)]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    declared = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])]
    model.generation_config = GenerationConfig()
    return sorted({int(token) for token in ends if token is not None})


def _group_chats(valid: list[int], n: int, limit: int) -> list[tuple[int, list[int]]]:
    """Split the generation of ``n`` traces per chat into batches of at most ``limit`` traces.

    Return, for each batch, the number of traces per chat and the indices of the chats. If ``n`` exceeds ``limit``,
    the traces of one chat are distributed over several batches.
    """
    if n <= limit:
        width = limit // n
        return [(n, valid[i : i + width]) for i in range(0, len(valid), width)]
    return [(min(limit, n - done), [index]) for index in valid for done in range(0, n, limit)]
