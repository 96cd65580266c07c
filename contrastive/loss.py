"""Supervised contrastive loss whose positives are weighted by spectral similarity."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def spectral_weights(spectra: torch.Tensor, family: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    """Weight of every ordered pair, ``[B, B]``: rows sum to 1 over the other graphs of the row's family.

    Source: arXiv 2302.10835 §4.3. Similarity is the negative Euclidean distance of the k smallest Laplacian eigenvalues
    (Eq. 4.4) divided by the batch's mean distance within families, so that the temperature means the same for networks
    of any size. A row without another member of its family is zero.
    """
    distance = torch.cdist(spectra, spectra, compute_mode="donot_use_mm_for_euclid_dist")  # exact for near twins
    same = family[:, None] == family[None, :]
    same.fill_diagonal_(False)
    scale = distance[same].mean().clamp_min(1e-12) if bool(same.any()) else distance.new_ones(())
    logits = (-distance / scale / temperature).masked_fill(~same, float("-inf"))
    weights = torch.softmax(logits, 1)
    return torch.where(same.any(1, keepdim=True), weights, torch.zeros_like(weights))


def supcon_loss(z: torch.Tensor, weights: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Weighted supervised contrastive loss of projections ``z [B, P]`` (normalised here) with pair weights ``[B, B]``.

    ``-mean_i sum_p w_ip log( exp(z_i z_p / tau) / sum_{a != i} exp(z_i z_a / tau) )`` over the rows with any weight.
    Source: Khosla et al., arXiv 2004.11362, Eq. 2 (L_out), with the uniform 1/|P(i)| replaced by the weights.
    """
    z = F.normalize(z, dim=1)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    log_p = logits - torch.logsumexp(logits, 1, keepdim=True)
    rows = weights.sum(1) > 0
    per_row = -(weights * log_p.masked_fill(weights == 0, 0.0)).sum(1)
    return per_row[rows].mean() if bool(rows.any()) else (z * 0.0).sum()
