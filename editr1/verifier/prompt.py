"""The prompt template of a verifier. It is saved in the same folder as the weights that were trained with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Final, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from editr1.config.base import Settings
from editr1.config.loader import ConfigError, explain
from editr1.data.rules import content_fault
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
    """Template of the prompt that asks the verifier to score an edit (arXiv 2604.27505, section 3.1).

    The wording is this project's, not the paper's. A verifier folder contains the template as ``editr1_prompt.json``, so that
    a model is always served with the prompt that it was trained with.
    """

    rules: str = DEFAULT_RULES
    """System message with the rules for scoring. If empty, the prompt has no system message, unless the model's chat template adds one."""
    source_label: str = "Source picture:"
    """Text before the source image; may be empty."""
    request: str = "Instruction: {instruction}\nQuestions:\n{principles}"
    """Text between the two images. Must contain ``{instruction}`` and ``{principles}`` exactly once each."""
    principle: str = "{number}. [{category}] {question}"
    """Text of one principle, a yes/no question. Must contain ``{question}``; may contain ``{number}`` (from 1) and ``{category}``."""
    separator: str = "\n"
    """Text between two principles."""
    edited_label: str = "Edited picture:"
    """Text before the edited image; may be empty."""
    min_pixels: int = Field(default=56 * 56, ge=1)
    """Minimum number of pixels of an image.

    The image processor enlarges smaller images to this area and preserves their aspect ratio.
    """
    max_pixels: int = Field(default=768 * 768, ge=1)
    """Maximum number of pixels of an image.

    The image processor scales larger images down to this area and preserves their aspect ratio.
    """

    @field_validator("rules", "source_label", "request", "principle", "separator", "edited_label")
    @classmethod
    def _content(cls, value: str, info: ValidationInfo) -> str:
        if fault := content_fault(value):
            raise ValueError(f"{info.field_name}: {fault}")
        return value

    @field_validator("request")
    @classmethod
    def _request(cls, value: str) -> str:
        return _check_placeholders(value, "request", required=("instruction", "principles"))

    @field_validator("principle")
    @classmethod
    def _principle(cls, value: str) -> str:
        return _check_placeholders(value, "principle", required=("question",), allowed=("number", "category"))

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels {self.min_pixels} is larger than max_pixels {self.max_pixels}; swap or change them"
            )
        return self

    def text(self, instruction: str, principles: Sequence[Principle]) -> str:
        """Return the text between the two images, with the instruction and the principles filled in."""
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
        """Read ``folder/editr1_prompt.json``, or return the default template if there is no such file.

        Raises ConfigError with the file and the field if the file is not a valid template.
        """
        path = Path(folder) / PROMPT_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not a valid prompt template: {error}; save the file as UTF-8") from error
        except ValidationError as error:
            faults = "\n".join(explain(cls, error, where=f"{path}: not a valid prompt template"))
            raise ConfigError(faults) from error


def _check_placeholders(value: str, field: str, *, required: tuple[str, ...], allowed: tuple[str, ...] = ()) -> str:
    try:
        parts = list(Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"{field}: {error}; double each literal brace") from error
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or name not in required + allowed):
            options = ", ".join(f"{{{option}}}" for option in required + allowed)
            raise ValueError(
                f"{field}: placeholder {{{name}}} is not one of {options}; use one of them, or double literal braces"
            )
    for name in required:
        if names.count(name) != 1:
            raise ValueError(f"{field}: contains {{{name}}} {names.count(name)} times; it must contain it exactly once")
    return value
