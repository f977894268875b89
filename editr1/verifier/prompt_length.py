"""Count the tokens of prompts, and check that they fit into the context of a verifier. No weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from transformers import ProcessorMixin

from editr1.config.loader import ConfigError
from editr1.data.errors import TableError
from editr1.data.images import image_size
from editr1.data.rules import length_fault
from editr1.data.types import EditCase, PreferencePair
from editr1.data.valid_rows import read_valid_rows
from editr1.verifier.chat import build_messages
from editr1.verifier.model import context_length, load_processing
from editr1.verifier.prompt import PromptTemplate


def check_pairs(path: Path, models: Sequence[str | Path], *, max_pairs: int | None = None) -> None:
    """Check the pairs of a table that verifiers will score: the rows must be valid, and the prompts must fit into the context.

    Args:
        path: Table of :class:`PreferencePair` rows.
        models: Folders of the verifiers.
        max_pairs: Only rows up to and including the ``max_pairs``-th pair that is not labelled "same" are checked.

    Raises:
        TableError: A row violates a rule of :mod:`editr1.data.rules`, or a prompt does not fit into a verifier's context.
    """
    checks = [LengthCheck.of_model(path, model) for model in models]
    decided = 0
    for number, pair in read_valid_rows(path, PreferencePair, needs_principles=True):
        if pair.label == "same":
            continue
        for check in checks:
            for candidate in (pair.winner, pair.loser):
                check.case(number, pair.case, (pair.case.source.data, candidate.image.data))
        decided += 1
        if decided == max_pairs:
            return


def check_cases(
    path: Path, models: Sequence[str | Path], *, needs_principles: bool = True, max_cases: int | None = None
) -> None:
    """Check the first ``max_cases`` cases of a table whose edits verifiers will score.

    Images count as zero tokens, because the sizes of the edited images are not known yet.

    Raises:
        TableError: A row violates a rule of :mod:`editr1.data.rules`, or a prompt does not fit into a verifier's context.
    """
    checks = [LengthCheck.of_model(path, model) for model in models]
    for number, case in islice(read_valid_rows(path, EditCase, needs_principles=needs_principles), max_cases):
        for check in checks:
            check.case(number, case, ())


class LengthCheck:
    """Check that the rows of the table ``path`` have at most ``limit`` tokens.

    ``reserved`` tokens of each row are reserved for the generated trace.
    """

    def __init__(self, counter: TokenCounter, path: Path, limit: int, reserved: int = 0) -> None:
        self._counter, self._path, self._limit, self._reserved = counter, path, limit, reserved

    @classmethod
    def of_model(cls, path: Path, model: str | Path) -> LengthCheck:
        """Create a check with the context of the verifier ``model``, which reserves one token for the trace."""
        return cls(TokenCounter(*load_processing(model)), path, context_length(model), 1)

    def __call__(self, number: int, text: str, images: Sequence[bytes]) -> None:
        """Raise TableError if the rendered text of row ``number`` with its images is too long."""
        tokens = self._counter.count(text, images)
        if fault := length_fault(tokens, self._limit, reserved=self._reserved):
            raise TableError(self._path, number, None, None, fault)

    def case(self, number: int, case: EditCase, images: Sequence[bytes]) -> None:
        """Raise TableError if the prompt for a case with these images is too long."""
        self(number, self._counter.render(case)[0], images)


class TokenCounter:
    """Counter for prompt tokens. It renders prompts with the model's chat template, and does not decode images."""

    def __init__(self, processor: ProcessorMixin, template: PromptTemplate) -> None:
        self._processor = processor
        self._template = template
        self._merge = int(processor.image_processor.merge_size) ** 2
        self.settings = (template.model_dump_json(), str(processor.tokenizer.chat_template))
        """Prompt template and chat template. Cached rows are invalid if one of them changes."""
        self._image_tokens = lru_cache(maxsize=4096)(self._count_image_tokens)

    def render(self, case: EditCase, trace: str | None = None) -> tuple[str, str]:
        """Render the prompt for an edit case and the trace as its completion. If there is no trace, the completion is empty.

        Raises ConfigError if the chat template changes the prompt when an answer follows.
        """
        messages = build_messages(self._template, case.instruction, case.principles)
        prompt = str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if trace is None:
            return prompt, ""
        answer = {"role": "assistant", "content": [{"type": "text", "text": trace}]}
        whole = str(self._processor.apply_chat_template([*messages, answer], tokenize=False))
        if not whole.startswith(prompt):
            raise ConfigError(
                "the model's chat template changes the prompt when an answer follows, so the loss cannot be restricted to"
                " the answer; use a model with another chat template"
            )
        return prompt, whole[len(prompt) :]

    def count(self, text: str, images: Sequence[bytes]) -> int:
        """Return the number of tokens of ``text``. An image placeholder counts as the tokens of its image.

        ``images`` contains the image files, in the order of their placeholders.
        """
        words = len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        return words + sum(self._image_tokens(image_size(data)) - 1 for data in images)

    def _count_image_tokens(self, size: tuple[int, int]) -> int:
        width, height = size
        return int(self._processor.image_processor.get_number_of_image_patches(height, width, {})) // self._merge
