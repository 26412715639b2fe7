"""What metric learning pulls together and pushes apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def supervised_contrastive(vectors: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Khosla et al.'s L_out (arXiv:2004.11362) over the rows that have a partner in the batch.

    `vectors` [n, d] of unit length, `groups` int64 [n].
    """
    itself = torch.eye(len(vectors), dtype=torch.bool)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, float("-inf"))
    log_share = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(itself, 0.0)
    partner = (groups[:, None] == groups[None, :]) & ~itself
    partners = partner.sum(1)
    per_row = (log_share * partner).sum(1)[partners > 0] / partners[partners > 0]
    return -per_row.mean() if len(per_row) else vectors.sum() * 0


def info_nce(vectors: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE over two views stacked [2n, dim]; rows of one group are never negatives of each other."""
    n = len(vectors) // 2
    logits = vectors @ vectors.T / temperature
    own = torch.arange(2 * n).roll(n)
    same = groups.unsqueeze(0) == groups.unsqueeze(1)
    same[torch.arange(2 * n), own] = False
    return F.cross_entropy(logits.masked_fill(same, -1e4), own)


class ArcFace(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Softmax over groups with an additive angular margin (Deng et al. 2019, arXiv:1801.07698).

    `centres` [groups, d] is where the groups' directions start. The margin, in radians, is given at each call, as it
    grows in training: from the first step on, it would keep small batches from learning at all.
    """

    def __init__(self, centres: Tensor, scale: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres.clone())
        self.scale = scale

    def forward(self, vectors: Tensor, groups: Tensor, margin: float) -> Tensor:
        cosine = (vectors @ F.normalize(self.centres, dim=1).T).clamp(-1 + 1e-6, 1 - 1e-6)
        own = cosine.gather(1, groups[:, None])
        pushed = torch.cos(torch.acos(own) + margin)
        # Past π - margin the cosine would rise again; a line goes on falling (the authors' own remedy).
        limit = torch.cos(torch.tensor(torch.pi - margin))
        pushed = torch.where(own > limit, pushed, own - margin * torch.sin(torch.tensor(margin)))
        return F.cross_entropy(self.scale * cosine.scatter(1, groups[:, None], pushed), groups)
