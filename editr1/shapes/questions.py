"""Parse the questions (principles) of the shapes dataset, and compute the correct answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from editr1.data.types import Category
from editr1.shapes.edits import BACKGROUND_PLACE
from editr1.shapes.scene import Scene
from editr1.shapes.truth import Reading
from editr1.shapes.vocabulary import BACKGROUND, BACKGROUNDS, CLEAN_QUESTION, CONTENTS, PLACES


@dataclass(frozen=True)
class Question:
    """A parsed question."""

    category: Category
    place: int = -1
    """Index of the place to which a follow or keep question refers; -1 for the quality question."""
    content: int = -1
    """Index of the content in a follow question; -1 for other questions."""

    def verdict(self, before: Scene, after: Reading) -> int:
        """Return the correct answer, 0 or 1.

        ``before`` is the scene of the source image, and ``after`` is the content that was read from the edited image.
        """
        if self.category is Category.QUALITY:
            return int(after.clean)
        expected = self.content if self.category is Category.FOLLOW else content_at(before, self.place)
        return int(content_at(after.scene, self.place) == expected)


def content_at(scene: Scene, place: int) -> int:
    """Return the index of the content of a place. Places 0 to 3 are the cells, and place 4 is the background."""
    return scene.background if place == BACKGROUND_PLACE else scene.cells[place]


def parse_question(text: str) -> Question | None:
    """Parse a question. Return None if it is not a question of the shapes dataset."""
    match = QUESTION.fullmatch(text.strip())
    if match is None:
        return None
    if match["kept"]:
        return Question(Category.KEEP, _place(match["kept"]))
    if match["background"]:
        return Question(Category.FOLLOW, BACKGROUND_PLACE, BACKGROUNDS.index(match["background"]))
    if match["place"]:
        return Question(Category.FOLLOW, _place(match["place"]), CONTENTS.index(match["content"]))
    return Question(Category.QUALITY)


def _place(name: str) -> int:
    return BACKGROUND_PLACE if name == BACKGROUND else PLACES.index(name)


_PLACES = "|".join(PLACES)
QUESTION: Final = re.compile(
    rf"(?P<kept>{_PLACES}|{BACKGROUND}) kept\?"
    rf"|{BACKGROUND} is (?P<background>{'|'.join(BACKGROUNDS)})\?"
    rf"|(?P<place>{_PLACES}) is (?P<content>{'|'.join(CONTENTS)})\?"
    rf"|{re.escape(CLEAN_QUESTION)}"
)
"""Pattern that matches every question of the shapes dataset."""
