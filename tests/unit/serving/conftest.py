"""An engine with known scores, a tiny verifier, and edits to score."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from editr1.data.images import encode_png
from editr1.data.types import Category, EncodedImage, Principle, ScoreItem
from editr1.serving.engines.base import EngineError, Generation, Sampling
from editr1.verifier.chat import Chat
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.trace import format_trace

MakeItems = Callable[..., list[ScoreItem]]
PRINCIPLES = (
    Principle(question="is it red?", category=Category.FOLLOW),
    Principle(question="is the rest kept?", category=Category.KEEP),
)


class FakeEngine:
    """An engine whose score is the red value of the first pixel of the edited image, divided by 25.5.

    Every ``unparsed_every``-th trace of an item has no score. Generation waits until ``gate`` is set. If the first pixel
    of an edited image is black, the whole batch fails.
    """

    def __init__(self, unparsed_every: int = 0) -> None:
        self.model_digest = "sha256:" + "0" * 64
        self.template = PromptTemplate()
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[tuple[int, Sampling]] = []
        self.closed = False
        self._unparsed_every = unparsed_every

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        self.gate.wait(20)
        self.batches.append((len(chats), sampling))
        return [self._one(chat, sampling) for chat in chats]

    def _one(self, chat: Chat, sampling: Sampling) -> list[Generation]:
        first = chat.images[1].getpixel((0, 0))
        if first == (0, 0, 0):
            raise RuntimeError("black image")
        score = round(first[0] / 25.5, 1)
        whole = format_trace("seen", PRINCIPLES, [1, 0], score)
        texts = [
            whole.partition("<score>")[0] if self._unparsed_every and (k + 1) % self._unparsed_every == 0 else whole
            for k in range(sampling.num_traces)
        ]
        return [Generation(text=text, prompt_tokens=40, completion_tokens=10) for text in texts]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_engine() -> FakeEngine:
    """An engine with known scores (see :class:`FakeEngine`)."""
    return FakeEngine()


@pytest.fixture
def half_unparsed_engine() -> FakeEngine:
    """Like ``fake_engine``, but every second trace of an item has no score."""
    return FakeEngine(unparsed_every=2)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny verifier of the shapes dataset with random weights, whose traces do not parse."""
    # This import needs torch, which most of these tests do not need.
    from editr1.shapes.tiny_verifier import build_tiny_verifier

    words = ("kept", "square", " red", "yes", "no", '[{"question": "')
    return build_tiny_verifier(tmp_path_factory.mktemp("tiny") / "verifier", words=words)


@pytest.fixture
def make_items() -> MakeItems:
    """``make_items(n, seed=0, red=None)`` returns ``n`` edits; ``red[i]`` is the first red value of edited image i."""

    def make(n: int, seed: int = 0, red: Sequence[int] | None = None) -> list[ScoreItem]:
        rng = random.Random(seed)

        def random_image(first: int | None = None) -> EncodedImage:
            image = Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3))
            if first is not None:
                image.putpixel((0, 0), (first, first, first))
            return EncodedImage(data=encode_png(image))

        return [
            ScoreItem(
                source=random_image(),
                edited=random_image(100 if red is None else red[i]),
                instruction=f"make it {i}",
                principles=PRINCIPLES,
            )
            for i in range(n)
        ]

    return make
