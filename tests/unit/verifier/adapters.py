"""Gradients of LoRA adapters by the chain rule, from the gradient of the weights into which they are merged.

A layer with the weights W and the adapter (A, B) computes the same as a layer with the weights W + s B A. If G is the
gradient of the loss with respect to these merged weights, that of A is s B^T G and that of B is s G A^T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Gradient = dict[str, Tensor]

_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def fill_adapters(network: nn.Module) -> None:
    """Fill the matrices B of all adapters with random numbers. They start at 0, with which A would have no gradient."""
    generator = torch.Generator().manual_seed(11)
    for name, parameter in network.named_parameters():
        if name.endswith(_B):
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def merged_weights(weights: Gradient, scale: float) -> Gradient:
    """Return the weights of a network without adapters that computes the same, by the names of that network."""
    full = {_plain(name): value for name, value in weights.items() if not name.endswith((_A, _B))}
    for layer, (a, b) in _adapters(weights).items():
        weight = full[f"{_plain(layer)}.weight"]
        full[f"{_plain(layer)}.weight"] = weight + scale * (b @ a).reshape(weight.shape)
    return full


def adapter_gradient(full: Gradient, weights: Gradient, scale: float) -> Gradient:
    """Return the gradient of the adapters in ``weights``. ``full`` is the gradient of the merged weights."""
    found: Gradient = {}
    for layer, (a, b) in _adapters(weights).items():
        gradient = full[f"{_plain(layer)}.weight"].flatten(1)
        found[layer + _A] = scale * (b.T @ gradient).reshape(weights[layer + _A].shape)
        found[layer + _B] = scale * (gradient @ a.T).reshape(weights[layer + _B].shape)
    return found


def _adapters(weights: Gradient) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the matrices A and B by the name of their layer. Those of a convolution without overlap are flattened."""
    layers = [name.removesuffix(_A) for name in weights if name.endswith(_A)]
    return {layer: (weights[layer + _A].flatten(1), weights[layer + _B].flatten(1)) for layer in layers}


def _plain(name: str) -> str:
    """Return the name that a parameter or layer has in the network without adapters."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
