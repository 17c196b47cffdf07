"""Losses that learn from preferences, on log-probabilities of whole answers.

| loss | data | formula, summed over examples |
|---|---|---|
| DPO, arXiv 2305.18290 eq. 7 | pairs | −log σ(β · ((c − c°) − (r − r°))); smoothed by ε ("conservative DPO"): (1−ε) of it and ε of it with the pair swapped |
| ORPO, arXiv 2403.07691 eq. 6–7 | pairs | −c̄ − λ · log σ(log odds(c̄) − log odds(r̄)), odds(c̄) = exp c̄ / (1 − exp c̄); needs no reference |
| KTO, arXiv 2402.01306 eq. 8 | labels | w · (1 − σ(β(a − a° − z))) if liked, w · (1 − σ(β(z − a + a°))) if not, z = max(0, mean(s − s°)) |

c, r: log-probability of the chosen and the rejected answer; c̄, r̄: their mean per token; a: that of the labelled answer, s: that of the
stranger's answer to the same prompt; ° marks the reference, the model before training.
"""  # noqa: E501 - a table's row can't be broken

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo(
    chosen: Tensor, rejected: Tensor, chosen_before: Tensor, rejected_before: Tensor, beta: float = 0.1, smoothing: float = 0.0
) -> Tensor:
    """DPO loss, summed over pairs. All [pairs], log-probabilities of answers. `smoothing`: ε, the share of pairs with swapped answers."""
    margin = beta * ((chosen - chosen_before) - (rejected - rejected_before))
    return -((1 - smoothing) * logsigmoid(margin) + smoothing * logsigmoid(-margin)).sum()


def orpo(chosen: Tensor, rejected: Tensor, weight: float = 0.1) -> Tensor:
    """ORPO loss, summed over pairs. chosen, rejected [pairs]: log-probabilities of answers, mean per token. `weight`: λ."""
    odds = (chosen - rejected) - (_log1m_exp(chosen) - _log1m_exp(rejected))
    return -(chosen + weight * logsigmoid(odds)).sum()


def kto(
    answer: Tensor, before: Tensor, moved: Tensor, liked: Tensor, beta: float = 0.1, liked_weight: float = 1.0, disliked_weight: float = 1.0
) -> Tensor:
    """KTO loss, summed over examples. answer, before [examples]; liked bool [examples]; moved: scalar z, no gradient, see `drift`."""
    gain = answer - before
    signed = torch.where(liked, gain - moved, moved - gain)
    weights = torch.where(liked, liked_weight, disliked_weight)
    return (weights * (1 - torch.sigmoid(beta * signed))).sum()


def drift(stranger: Tensor, stranger_before: Tensor) -> Tensor:
    """z: how far the model has moved from the reference on answers that don't belong to their prompts; at least 0, without a gradient."""
    return (stranger - stranger_before).detach().mean().clamp(min=0)


def _log1m_exp(x: Tensor) -> Tensor:
    """log(1 − exp(x)) for x < 0, without loss at either end (Mächler 2012). x = 0, a certain answer, is taken for one just below it."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -0.6931
    return torch.where(near, torch.log(-torch.expm1(torch.where(near, x, -1.0))), torch.log1p(-torch.exp(torch.where(near, -1.0, x))))
