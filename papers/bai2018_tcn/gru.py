"""nn.GRU, faster on a CPU core: a step is one product, the gradient of W one for all steps."""

from typing import Any

import torch
from torch import Tensor, nn


def gru(layer: nn.GRU, x: Tensor) -> Tensor:
    """The states (T, B, H) of one layer, given x (T, B, C); no gradient flows to x."""
    (Wx, Wh, bx, bh), H = layer.parameters(), layer.hidden_size
    (Wx, Wy), (bx, by) = Wx.split([2 * H, H]), bx.split([2 * H, H])
    rows = nn.functional.pad(torch.cat([Wx.T, bx[None]]), (0, H))  # x has no part in m
    W = torch.cat([Wh.T, rows[:-1], rows[-1:] + bh])
    return _GRU.apply(nn.functional.pad(x, (0, 1), value=1.0), W, torch.cat([Wy.T, by[None]]))


class _GRU(torch.autograd.Function):
    """T steps, B sequences, H units; r, z, m = (h, x, 1) W, σ on r and z; y = tanh(u + r m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, Wy: Tensor) -> Tensor:
        (T, B, _), H = x.shape, Wy.shape[1]
        hx, a, y = nn.functional.pad(x, (H, 0, 0, 0, 0, 1)), x.new_empty(T, B, 3 * H), x @ Wy
        for now, after, gates, u in zip(hx, hx[1:, :, :H], a, y, strict=False):
            r, z, m = torch.mm(now, W, out=gates).split(H, 1)
            gates[:, : 2 * H].sigmoid_()
            u.addcmul_(r, m).mul_(2).sigmoid_().mul_(2).sub_(1)  # 2 σ(2u) − 1: tanh is slow
            torch.sub(now[:, :H], u, out=after).mul_(z).add_(u)
        ctx.save_for_backward(W, hx, a, y)
        return hx[1:, :, :H]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (W, hx, a, y), (G,) = ctx.saved_tensors, gradients
        H, dh, back = G.shape[2], torch.zeros_like(G[0]), W[: G.shape[2]].T.contiguous()
        for g, gates, u, h in reversed(list(zip(G, a, y, hx[:, :, :H], strict=False))):
            r, z, m = gates.split(H, 1)
            past, slope = dh.add_(g) * z, gates - gates * gates
            du = (dh - past) * (1 - u * u)
            torch.cat([du * m, dh * (h - u), du * r], 1, out=gates)  # a and y become gradients
            gates[:, : 2 * H].mul_(slope[:, : 2 * H])
            u.copy_(du)
            dh = past.addmm_(gates, back)
        rows = hx[:-1].flatten(0, 1).T
        return None, rows @ a.flatten(0, 1), rows[H:] @ y.flatten(0, 1)
