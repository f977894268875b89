"""Saves work on pictures that a batch holds several times, as GCPO's do: N traces of a pair share their pictures.

The values are those that the library computes for each picture alone; only the repetition is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import PreTrainedModel, ProcessorMixin


def process_pictures_once(processor: ProcessorMixin) -> None:
    """Make the image processor of ``processor`` prepare each distinct PIL picture of a call once."""
    own = processor.image_processor
    own.__class__ = type(type(own).__name__, (_OncePerPicture, type(own)), {})


def encode_pictures_once(model: PreTrainedModel) -> None:
    """Make a Qwen2.5-VL ``model`` run its vision tower once a distinct picture of a batch.

    The features of a repeated picture are one tensor used several times, so its gradient is the sum over its uses.
    """
    tower = model.model.visual
    tower.__class__ = type(type(tower).__name__, (_OncePerPatches, type(tower)), {})


class _OncePerPicture:
    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        flat = _flat(images)
        if not all(isinstance(item, Image) for item in flat):
            return super().preprocess(images, *args, **kwargs)  # type: ignore[misc]
        places: dict[Any, int] = {}
        order = [places.setdefault((item.mode, item.size, item.tobytes()), len(places)) for item in flat]
        if len(places) == len(flat):
            return super().preprocess(images, *args, **kwargs)  # type: ignore[misc]
        distinct = [flat[order.index(place)] for place in range(len(places))]
        result = super().preprocess(distinct, *args, **kwargs)  # type: ignore[misc]
        rows = _rows_of(np.asarray(result["image_grid_thw"]), order)
        for name, index in (("pixel_values", rows), ("image_grid_thw", np.asarray(order))):
            values = result[name]
            result[name] = values[torch.as_tensor(index) if isinstance(values, torch.Tensor) else index]
        return result


class _OncePerPatches:
    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        if any(isinstance(value, torch.Tensor) for value in kwargs.values()):  # laid out for these very pictures
            return super().forward(hidden_states, grid_thw=grid_thw, **kwargs)  # type: ignore[misc]
        grids = grid_thw.tolist()
        sizes = [time * height * width for time, height, width in grids]
        places: dict[Any, int] = {}
        order = []
        for grid, patches in zip(grids, torch.split(hidden_states.detach(), sizes), strict=True):
            key = (tuple(grid), patches.float().cpu().numpy().tobytes())
            order.append(places.setdefault(key, len(places)))
        if len(places) == len(order):
            return super().forward(hidden_states, grid_thw=grid_thw, **kwargs)  # type: ignore[misc]
        first = [order.index(place) for place in range(len(places))]
        device = hidden_states.device
        output = super().forward(  # type: ignore[misc]
            hidden_states[torch.as_tensor(_rows_of(np.asarray(grids), first), device=device)],
            grid_thw=grid_thw[torch.as_tensor(first, device=device)],
            **kwargs,
        )
        merged = np.asarray([grids[place] for place in first])
        merged[:, 1:] //= self.spatial_merge_size  # type: ignore[attr-defined]
        output.pooler_output = output.pooler_output[torch.as_tensor(_rows_of(merged, order), device=device)]
        return output


def _rows_of(grids: np.ndarray, order: list[int]) -> np.ndarray:
    """Row numbers of the pictures ``order``, when picture k takes ``prod(grids[k])`` rows."""
    sizes = grids.prod(axis=1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([np.arange(starts[place], starts[place + 1]) for place in order])


def _flat(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return [item for part in images for item in _flat(part)]
    return [images]
