"""The sentence classifier of Kim (EMNLP 2014): word vectors, filters of three widths, the maximum.

Shapes:  N sentences, T words of a padded sentence, U different words, k numbers of a word vector,
         h words of a window, M filters of a width, F filters in all, K classes.
Symbols: x words as numbers, 0 the padding; V their vectors, w filters, b biases, z the penultimate
         layer, r the mask of dropout; as in sec. 2 of the paper.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, relu

WIDTHS = (3, 4, 5)  # sec. 3.1
PAD = max(WIDTHS) - 1  # on each side of the longest sentence of all


def shortened(x: Int[Tensor, "N T"]) -> tuple[Int[Tensor, " U"], Int[Tensor, "N t"]]:
    """The words of a batch, and its sentences as places among these: all that its maxima need.

    Of the padding that all have in common one word stays: windows without a word are all equal.
    """
    t = int((x != 0).sum(1).max()) + 1 + 2 * PAD
    used, places = x[:, :t].unique(return_inverse=True)
    return used.long(), places


class Strongest(torch.autograd.Function):
    """max_i w · x_{i:i+h−1} for every sentence and filter: eq. (2) before b and f, then max.

    A filter's product with a word is the same wherever the word stands. So each different word is
    multiplied once, and a window is a sum of h rows of that table. Of all windows of a sentence
    only the strongest has a gradient, and that is what the way back visits.
    """

    @staticmethod
    def forward(
        ctx: Any, V: Float[Tensor, "U k"], w: Float[Tensor, "h M k"], x: Int[Tensor, "N T"]
    ) -> Float[Tensor, "N M"]:
        h, M, _ = w.shape
        table = (V @ w.flatten(0, 1).T).view(-1, M)  # (U·h, M)
        windows = x.unfold(1, h, 1) * h + torch.arange(h)  # (N, T−h+1, h)
        sums = embedding_bag(windows.reshape(-1, h), table, mode="sum")  # (N·(T−h+1), M)
        strongest, at = sums.view(len(x), -1, M).max(1)  # (N, M)
        ctx.save_for_backward(V, w, x, at)
        return strongest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        V, w, x, at = ctx.saved_tensors
        h = len(w)
        g = gradients[0].T.repeat(h, 1)  # (h·M, N)
        seen = x.gather(1, (at[:, None] + torch.arange(h)[:, None]).flatten(1))  # (N, h·M)
        seen = seen.T.contiguous()  # the words that stood under each weight
        dw = embedding_bag(seen, V, mode="sum", per_sample_weights=g)  # (h·M, k)
        cells = seen * len(g) + torch.arange(len(g))[:, None]
        dtable = V.new_zeros(len(V) * len(g)).index_add_(0, cells.flatten(), g.flatten())
        cells = dtable.nonzero()[:, 0]  # about one in thirty
        first = torch.searchsorted(cells, torch.arange(len(V)) * len(g))  # of each word
        table = w.flatten(0, 1)
        dV = embedding_bag(
            cells % len(g), table, first, mode="sum", per_sample_weights=dtable[cells]
        )
        return dV, dw.view_as(w), None


class TextCNN(nn.Module):
    """W (z ∘ r) + b with z = [max f(w · x + b)], eqs (2)-(5), before the softmax; f is ReLU."""

    def __init__(self, *, words: int, classes: int, size: int = 300, maps: int = 100) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(1 + words, size).uniform_(-0.25, 0.25))  # sec. 3.3
        self.words.data[0] = 0  # padding, now and after every step
        self.filters = nn.ParameterList(  # gap "initial-weights"
            torch.empty(h, maps, size).uniform_(-0.01, 0.01) for h in WIDTHS
        )
        self.biases = nn.Parameter(torch.zeros(len(WIDTHS) * maps))
        self.output = nn.Linear(len(WIDTHS) * maps, classes)
        for weight in self.output.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Int[Tensor, "N T"]) -> Float[Tensor, "N K"]:
        used, x = shortened(x)
        return self.scores(self.words[used], x)

    def scores(
        self, V: Float[Tensor, "U k"], x: Int[Tensor, "N T"], r: Float[Tensor, "N F"] | None = None
    ) -> Float[Tensor, "N K"]:
        """With a mask as in training; without one, half of each weight as in testing (sec. 2.1)."""
        strongest = torch.cat([Strongest.apply(V, w, x) for w in self.filters], dim=1)  # (N, F)
        z = relu(strongest + self.biases)  # b is no window's own and f grows: after the maximum
        return self.output(z * (0.5 if r is None else r))
