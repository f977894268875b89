"""The words around a case that the verifier reads, saved beside the weights that were trained with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Final, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from editr1.config.base import Settings
from editr1.config.loader import ConfigError
from editr1.data.types import Principle

PROMPT_FILE: Final = "editr1_prompt.json"

DEFAULT_RULES: Final = """\
You judge how well a picture was edited. You get the source picture, the instruction, yes/no questions, and the edited picture.
First reason: describe what changed between the two pictures, and go through the questions one by one, naming places by boxes.
Rules:
- Answer 1 only when you are sure; when unsure answer 0.
- A change of degree (larger, brighter, more) must be clearly visible to count.
- An edited picture that is identical or nearly identical to the source scores 0.
- A change that nobody asked for is a hallucination and costs heavily.
- A white border that was not in the source costs.
- A question that contradicts the instruction still gets its 0 or 1, but is ignored in the final score.
- The final score, from 0 to 10 with decimals allowed, is not the average: deduct by how costly a fault is to repair. \
0 is unusable, 5 partly usable, 8 nearly usable.
After the reasoning write exactly:
[{"question": "<the first question>", "score": <0 or 1>}, ...] with every question, word for word and in order,
{"average_score": <mean of the 0/1 scores>}
<score><final score></score>"""


class PromptTemplate(Settings):
    """How a case is laid out for the verifier (paper section 3.1; the wording is the project's).

    A verifier folder holds one as ``editr1_prompt.json``, so that a model is always served with the prompt it was
    trained with.
    """

    rules: str = DEFAULT_RULES
    """System message. Empty: no system message of ours (the chat template may still add its own)."""
    source_label: str = "Source picture:"
    """Text before the source picture; empty: none."""
    request: str = "Instruction: {instruction}\nQuestions:\n{principles}"
    """Text between the pictures; must hold ``{instruction}`` and ``{principles}`` once each."""
    principle: str = "{number}. [{category}] {question}"
    """One principle; may hold ``{number}`` (from 1), ``{category}`` and must hold ``{question}``."""
    separator: str = "\n"
    """Text between two principles."""
    edited_label: str = "Edited picture:"
    """Text before the edited picture; empty: none."""
    min_pixels: int = Field(default=56 * 56, ge=1)
    """Pictures with fewer pixels are enlarged to this area (aspect kept) by the image processor."""
    max_pixels: int = Field(default=768 * 768, ge=1)
    """Pictures with more pixels are reduced to this area (aspect kept) by the image processor."""

    @field_validator("request")
    @classmethod
    def _request(cls, value: str) -> str:
        return _holding(value, "request", required=("instruction", "principles"))

    @field_validator("principle")
    @classmethod
    def _principle(cls, value: str) -> str:
        return _holding(value, "principle", required=("question",), allowed=("number", "category"))

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self

    def text(self, instruction: str, principles: Sequence[Principle]) -> str:
        """The text between the two pictures."""
        lines = self.separator.join(
            self.principle.format(number=number, category=item.category.value, question=item.question)
            for number, item in enumerate(principles, start=1)
        )
        return self.request.format(instruction=instruction, principles=lines)

    def save(self, folder: Path) -> Path:
        """Write ``folder/editr1_prompt.json`` and return its path."""
        path = folder / PROMPT_FILE
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> PromptTemplate:
        """Read ``folder/editr1_prompt.json``; the default template where there is no such file.

        Raises ``ValueError`` naming the file and field when it is not a template.
        """
        path = Path(folder) / PROMPT_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a prompt template: {error}") from error


def _holding(value: str, field: str, *, required: tuple[str, ...], allowed: tuple[str, ...] = ()) -> str:
    try:
        parts = list(Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"{field}: {error}; write a literal brace twice") from error
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or name not in required + allowed):
            options = ", ".join(f"{{{option}}}" for option in required + allowed)
            raise ValueError(f"{field}: placeholder {{{name}}} is not one of {options}; write a literal brace twice")
    for name in required:
        if names.count(name) != 1:
            raise ValueError(f"{field}: must hold {{{name}}} exactly once, holds it {names.count(name)} times")
    return value
