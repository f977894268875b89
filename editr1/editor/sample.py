"""Edit images with an editor policy, without training it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from editr1.editor.policies.base import EditorPolicy, Size
from editr1.editor.rollout import sample_ode


@dataclass(frozen=True)
class EditSettings:
    """Settings of deterministic image editing.

    Attributes:
        num_inference_steps: Denoising steps per image.
        guidance: Guidance scale to set on the policy, as in :func:`editr1.editor.policies.load_policy`. None keeps the
            policy's current value.
        resolution: Square root of the edited image's area in pixels. If None, an edited image has the size of its source,
            but an area of at most 1 megapixel and sides that are multiples of ``policy.multiple``.
        reference_resolution: Square root of the area in pixels to which the source image is resized before the editor
            receives it. If None, the source is resized to the size of the edited image.
        batch_size: Maximum number of images per forward pass. Images of different sizes are never batched together.
    """

    num_inference_steps: int
    guidance: float | None = None
    resolution: int | None = None
    reference_resolution: int | None = None
    batch_size: int = 32


def edit_images(
    policy: EditorPolicy,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    settings: EditSettings,
    *,
    seed: int | Sequence[int] = 0,
) -> list[Image.Image]:
    """Edit each source image according to its instruction, with deterministic sampling.

    Args:
        policy: The editor.
        sources: Images of any size and mode.
        instructions: One instruction per source.
        settings: Sampling settings.
        seed: Seeds of the initial noise: a sequence with one seed per image, or an integer. With an integer, image i uses
            ``seed + i``, so integers for separate calls must differ by at least the number of images. The noise of an image
            depends only on its seed, not on the batch.

    Returns:
        The edited images, in the order of ``sources``.

    Raises:
        ValueError: ``sources``, ``instructions`` and ``seed`` differ in length.
        NotFinite: An edited image has NaN or infinite pixels.
    """
    if len(sources) != len(instructions):
        raise ValueError(f"{len(sources)} sources but {len(instructions)} instructions; give one per source")
    seeds = range(seed, seed + len(sources)) if isinstance(seed, int) else seed
    if len(seeds) != len(sources):
        raise ValueError(f"{len(sources)} sources but {len(seeds)} seeds; give one per source")
    if settings.guidance is not None:
        policy.guidance = settings.guidance
    by_size: dict[tuple[Size, Size], list[int]] = defaultdict(list)
    for i, source in enumerate(sources):
        size = reference_size = policy.working_size(source, settings.resolution)
        if settings.reference_resolution:
            reference_size = policy.working_size(source, settings.reference_resolution)
        by_size[size, reference_size].append(i)
    results: dict[int, Image.Image] = {}
    for (size, reference_size), members in by_size.items():
        for at in range(0, len(members), settings.batch_size):
            part = members[at : at + settings.batch_size]
            condition = policy.encode([sources[i] for i in part], [instructions[i] for i in part], size, reference_size)
            latents = sample_ode(
                policy, condition, range(len(part)), [seeds[i] for i in part], settings.num_inference_steps
            )
            results.update(zip(part, policy.decode(latents, size), strict=True))
    return [results[i] for i in range(len(sources))]
