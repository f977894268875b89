"""KL penalty on the distance between the trained policy and the reference policy, in three forms used by public code."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from editr1.editor.sde import Transition

KlKind = Literal["flow_grpo", "gaussian", "velocity"]


def kl_divergence(kind: KlKind, policy: Transition, reference: Transition, v: Tensor, v_reference: Tensor) -> Tensor:
    """Return the KL penalty of one stochastic step per sample, ``[B]`` fp32, as a mean over latent elements.

    d is the difference between the two policies' means:

    - ``flow_grpo``: d^2 / (2 s^2), where s is the diffusion coefficient, as in public Flow-GRPO. The paper's coefficient
      ``beta`` = 0.04 belongs to this form.
    - ``gaussian``: d^2 / (2 std^2), the exact KL divergence, because both policies have the same std.
    - ``velocity``: (v - v_reference)^2, the squared difference of the velocities.
    """
    if kind == "velocity":
        return ((v.float() - v_reference.float()) ** 2).flatten(1).mean(1)
    scale = policy.diffusion if kind == "flow_grpo" else policy.std
    return ((policy.mean - reference.mean) ** 2 / (2.0 * scale**2)).flatten(1).mean(1)
