"""The self-attention encoder of SAEP (Safari, India, Hernando 2020)."""

from dataclasses import dataclass

from torch import Tensor, nn

from nnet.padding import inside_mask
from utils.config import Count, Probability


@dataclass(frozen=True)
class SaepOptions:
    """Sizes in the paper's symbols: d_k = d_v in {64, 128, 512}, d_ff of the feed-forward layers."""

    type: str
    blocks: Count = 2
    d_k: Count = 512
    d_ff: Count = 2048
    dropout: Probability = 0.1


class SaepBlock(nn.Module):
    """With x_t in R^d_m: y = norm(x + W_o softmax(Q K^T / sqrt(d_k)) V), z = norm(y + W_2 relu(W_1 y)).

    Q, K and V are affine in x, each of width d_k. One head, no position encoding, dropout after each branch.
    """

    def __init__(self, width: int, options: SaepOptions) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, options.d_k) for _ in range(3))
        self.output = nn.Linear(options.d_k, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, options.d_ff), nn.ReLU(), nn.Linear(options.d_ff, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, inside: Tensor | None) -> Tensor:
        # Written out: with d_k = 512 on a CPU, PyTorch's scaled_dot_product_attention takes three times as long.
        query = self.query(x) * self.query.out_features ** -0.5
        scores = query @ self.key(x).transpose(1, 2)  # Q K^T / sqrt(d_k): B x T x T
        if inside is not None:
            scores = scores.masked_fill(~inside[:, None], float("-inf"))  # every frame sees the frames of its utterance
        attended = scores.softmax(dim=2) @ self.value(x)  # softmax(Q K^T / sqrt(d_k)) V: B x T x d_v
        y = self.attention_norm(x + self.dropout(self.output(attended)))  # y = norm(x + W_o ..)
        return self.feed_forward_norm(y + self.dropout(self.feed_forward(y)))  # z = norm(y + W_2 relu(W_1 y))


class Saep(nn.Module):
    """Blocks of self-attention: B x T x d_m and lengths (or None) in, the same shapes out."""

    def __init__(self, input_dim: int, options: SaepOptions) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SaepBlock(input_dim, options) for _ in range(options.blocks))
        self.output_dim, self.receptive_field, self.stride = input_dim, 1, 1

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        inside = None if lengths is None else inside_mask(x.shape[1], lengths)
        for block in self.blocks:
            x = block(x, inside)
        return x, lengths
