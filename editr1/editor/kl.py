"""Three variants of the KL term to the reference policy that public code uses."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from editr1.editor.sde import Transition

KlKind = Literal["flow_grpo", "gaussian", "velocity"]


def kl_divergence(kind: KlKind, policy: Transition, reference: Transition, v: Tensor, v_reference: Tensor) -> Tensor:
    """Return the KL term per sample, ``[B]`` fp32, as a mean over latent elements.

    - ``flow_grpo``: ||dmean||^2 / (2 s^2) with the diffusion coefficient s, as in public Flow-GRPO. The paper's
      coefficient of 0.04 is in these units.
    - ``gaussian``: the exact KL between the two step Gaussians, ||dmean||^2 / (2 std^2), since both have the same std.
    - ``velocity``: (v - v_reference)^2.
    """
    if kind == "velocity":
        return ((v.float() - v_reference.float()) ** 2).flatten(1).mean(1)
    scale = policy.diffusion if kind == "flow_grpo" else policy.std
    return ((policy.mean - reference.mean) ** 2 / (2.0 * scale**2)).flatten(1).mean(1)
