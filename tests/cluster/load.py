"""Send score requests to a reward service from a pod, and print the number of outcomes per kind as one line of JSON.

Usage: python load.py URL SECONDS CONCURRENT
"""

import io
import json
import sys
import threading
import time
from collections import Counter

from PIL import Image

from editr1.config.serve import ClientConfig
from editr1.data.types import Category, EncodedImage, Principle, ScoreItem
from editr1.serving.client import RewardClient

url, seconds, concurrent = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])


def uniform_image(colour: tuple[int, int, int]) -> EncodedImage:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return EncodedImage(data=buffer.getvalue())


item = ScoreItem(
    source=uniform_image((0, 0, 0)),
    edited=uniform_image((200, 0, 0)),
    instruction="remove the top-left red square",
    principles=(
        Principle(question="top-left is empty?", category=Category.FOLLOW),
        Principle(question="background kept?", category=Category.KEEP),
        Principle(question="picture clean?", category=Category.QUALITY),
    ),
)
counts: Counter[str] = Counter()
lock = threading.Lock()
end = time.monotonic() + seconds


def work() -> None:
    while time.monotonic() < end:
        (outcome,) = client.score([item])
        with lock:
            counts["ok" if outcome.ok else str(outcome.cause)] += 1


with RewardClient([url], config=ClientConfig(concurrency=concurrent, resolve_interval_seconds=1.0)) as client:
    threads = [threading.Thread(target=work) for _ in range(concurrent)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("RESULT " + json.dumps({"counts": counts, "digest": client.model_digest()}), flush=True)
