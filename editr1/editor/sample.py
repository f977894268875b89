"""Editing pictures with a policy, without training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from PIL import Image

from editr1.editor.policies.base import EditorPolicy, Size
from editr1.editor.rollout import sample_ode


def edit_images(
    policy: EditorPolicy,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    *,
    steps: int,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    size: int | None = None,
    batch_size: int = 32,
    reference_size: int | None = None,
) -> list[Image.Image]:
    """Edit each source by its instruction with the deterministic sampler; results in the order given.

    Args:
        policy: the editor.
        sources: pictures of any size and mode.
        instructions: one for each source.
        steps: denoising steps.
        guidance: as in :func:`editr1.editor.policies.load_policy`; None keeps the policy's.
        seed: picture i starts from the noise of a CPU generator seeded with ``seed[i]``, or with ``seed + i`` where it is
            one number; whatever the batch size. Calls with one number must be told apart by the caller.
        size: side of a square of the edit's area; None keeps each source's size (rounded down, at most 1 megapixel).
        batch_size: most pictures a forward; pictures of different working sizes never share one.
        reference_size: the same for the reference; None means as the edit.

    Raises:
        ValueError: ``sources``, ``instructions`` or ``seed`` differ in length.
    """
    if len(sources) != len(instructions):
        raise ValueError(f"{len(sources)} sources but {len(instructions)} instructions")
    seeds = range(seed, seed + len(sources)) if isinstance(seed, int) else seed
    if len(seeds) != len(sources):
        raise ValueError(f"{len(sources)} sources but {len(seeds)} seeds")
    if guidance is not None:
        policy.guidance = guidance
    buckets: dict[tuple[Size, Size], list[int]] = defaultdict(list)
    for i, source in enumerate(sources):
        edit = policy.working_size(source, size)
        buckets[edit, policy.working_size(source, reference_size) if reference_size else edit].append(i)
    results: dict[int, Image.Image] = {}
    for (edit, reference), members in buckets.items():
        for at in range(0, len(members), batch_size):
            part = members[at : at + batch_size]
            condition = policy.encode([sources[i] for i in part], [instructions[i] for i in part], edit, reference)
            latents = sample_ode(policy, condition, range(len(part)), [seeds[i] for i in part], steps)
            results.update(zip(part, policy.decode(latents, edit), strict=True))
    return [results[i] for i in range(len(sources))]
