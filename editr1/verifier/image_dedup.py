"""Deduplicate the images of a batch, so that each distinct image is preprocessed and encoded only once.

A GCPO batch contains each image once per trace. Deduplication saves time and does not change the results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import nn
from transformers import ImageProcessingMixin, PreTrainedModel, ProcessorMixin


def deduplicate_image_processing(processor: ProcessorMixin) -> None:
    """Make ``processor`` preprocess each distinct PIL image of a call only once."""
    processor.image_processor = DeduplicatingImageProcessor(processor.image_processor)


def deduplicate_image_encoding(model: PreTrainedModel) -> None:
    """Make the vision encoder of a Qwen2.5-VL ``model`` encode each distinct image of a batch only once.

    All occurrences of an image share one feature tensor, so the gradient of this tensor is the sum over the occurrences.
    """
    tower = model.model.visual
    hooks = _DeduplicatingHooks(int(tower.spatial_merge_size))
    tower.register_forward_pre_hook(hooks.before_forward, with_kwargs=True)
    tower.register_forward_hook(hooks.after_forward, with_kwargs=True)


class DeduplicatingImageProcessor(ImageProcessingMixin):  # type: ignore[misc]
    """Wrapper of the image processor ``inner`` that passes each distinct image of a call to it only once.

    All other attributes and the saved settings come from ``inner``.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Process ``images``, an image or nested lists of images, with the same result as ``inner``."""
        flat = _flatten(images)
        if not all(isinstance(item, Image) for item in flat):
            return self.inner(images, *args, **kwargs)
        index_of: dict[Any, int] = {}
        order = [index_of.setdefault((item.mode, item.size, item.tobytes()), len(index_of)) for item in flat]
        if len(index_of) == len(flat):
            return self.inner(images, *args, **kwargs)
        distinct = [flat[order.index(index)] for index in range(len(index_of))]
        result = self.inner(distinct, *args, **kwargs)
        patch_rows = _rows_of(np.asarray(result["image_grid_thw"]), order)
        for name, rows in (("pixel_values", patch_rows), ("image_grid_thw", np.asarray(order))):
            values = result[name]
            result[name] = values[torch.as_tensor(rows) if isinstance(values, torch.Tensor) else rows]
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of ``inner``, so that ``save_pretrained`` writes them instead of the wrapper's settings."""
        settings: dict[str, Any] = self.inner.to_dict()
        return settings

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # The modules copy and pickle look up attributes before __init__ has run.
            raise AttributeError(name)
        return getattr(self.inner, name)


class _DeduplicatingHooks:
    """Hooks of the vision encoder that remove repeated images from its input and repeat their features in its output."""

    def __init__(self, merge_size: int) -> None:
        self._merge_size = merge_size
        self._feature_rows: np.ndarray | None = None

    def before_forward(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._feature_rows = None
        hidden_states, grid_thw = args[0], kwargs["grid_thw"]
        others = {name: value for name, value in kwargs.items() if name != "grid_thw"}
        if any(isinstance(value, torch.Tensor) for value in others.values()):
            return None  # These tensors belong to the full list of images, so no image can be removed.
        grids = grid_thw.tolist()
        sizes = [time * height * width for time, height, width in grids]
        index_of: dict[Any, int] = {}
        order = []
        for grid, patches in zip(grids, torch.split(hidden_states.detach(), sizes), strict=True):
            key = (tuple(grid), patches.float().cpu().numpy().tobytes())
            order.append(index_of.setdefault(key, len(index_of)))
        if len(index_of) == len(order):
            return None
        first = [order.index(index) for index in range(len(index_of))]
        merged = np.asarray([grids[index] for index in first])
        merged[:, 1:] //= self._merge_size
        self._feature_rows = _rows_of(merged, order)
        device = hidden_states.device
        patch_rows = torch.as_tensor(_rows_of(np.asarray(grids), first), device=device)
        distinct_grids = grid_thw[torch.as_tensor(first, device=device)]
        return (hidden_states[patch_rows], *args[1:]), {**others, "grid_thw": distinct_grids}

    def after_forward(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._feature_rows is None:
            return None
        rows = torch.as_tensor(self._feature_rows, device=output.pooler_output.device)
        output.pooler_output = output.pooler_output[rows]
        return output


def _rows_of(grids: np.ndarray, order: list[int]) -> np.ndarray:
    """Return the indices of the rows of the images ``order`` in a tensor that concatenates the rows of all images.

    Image k has ``prod(grids[k])`` rows.
    """
    sizes = grids.prod(axis=1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([np.arange(starts[index], starts[index + 1]) for index in order])


def _flatten(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return [item for part in images for item in _flatten(part)]
    return [images]
