"""Reading of the world's words: questions, and the instruction and questions of a prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from editr1.data.types import Category
from editr1.shapes.edits import GROUND_PLACE, INSTRUCTION
from editr1.shapes.scene import Scene
from editr1.shapes.truth import Reading
from editr1.shapes.vocabulary import BACKGROUNDS, CLEAN_QUESTION, CONTENTS, GROUND, PLACES


@dataclass(frozen=True)
class Question:
    """A parsed question: of category quality without a place, keep with one, follow with one and what it should hold."""

    category: Category
    place: int = -1
    wanted: int = -1

    def verdict(self, before: Scene, after: Reading) -> int:
        """The true 0/1 answer."""
        if self.category is Category.QUALITY:
            return int(after.clean)
        expected = self.wanted if self.category is Category.FOLLOW else held(before, self.place)
        return int(held(after.scene, self.place) == expected)


def held(scene: Scene, place: int) -> int:
    """What a place (0-3 a cell, 4 the background) holds."""
    return scene.ground if place == GROUND_PLACE else scene.cells[place]


def parse_question(text: str) -> Question | None:
    """Read a question; None for one that is not of the world's grammar."""
    match = QUESTION.fullmatch(text.strip())
    if match is None:
        return None
    if match["kept"]:
        return Question(Category.KEEP, _place(match["kept"]))
    if match["ground"]:
        return Question(Category.FOLLOW, GROUND_PLACE, BACKGROUNDS.index(match["ground"]))
    if match["place"]:
        return Question(Category.FOLLOW, _place(match["place"]), CONTENTS.index(match["content"]))
    return Question(Category.QUALITY)


def read_prompt(text: str) -> tuple[str, tuple[str, ...]]:
    """The instruction and the questions that a prompt's text asks about, the questions in order, each once.

    The last instruction counts, and the questions after it: examples come first. Raises ``ValueError`` when the text
    holds no instruction of the world.
    """
    found = list(INSTRUCTION.finditer(text))
    if not found:
        raise ValueError("the prompt holds no instruction of the shapes world; see editr1.shapes.vocabulary")
    last = found[-1]
    return last.group(), tuple(dict.fromkeys(match.group() for match in QUESTION.finditer(text, last.end())))


def _place(name: str) -> int:
    return GROUND_PLACE if name == GROUND else PLACES.index(name)


_PLACES = "|".join(PLACES)
QUESTION: Final = re.compile(
    rf"(?P<kept>{_PLACES}|{GROUND}) kept\?"
    rf"|{GROUND} is (?P<ground>{'|'.join(BACKGROUNDS)})\?"
    rf"|(?P<place>{_PLACES}) is (?P<content>{'|'.join(CONTENTS)})\?"
    rf"|{re.escape(CLEAN_QUESTION)}"
)
"""Every question of the world."""
