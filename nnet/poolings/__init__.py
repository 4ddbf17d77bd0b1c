"""Poolings: from the frames of an encoder to one vector per utterance.

Every pooling is a module with `output_dim`, called with
    h        B x T x d   frames of the encoder
    lengths  B           frames of each utterance that count; None: all T
and returns B x output_dim. Frames beyond an utterance's length never change its result. Symbols are those of the papers
named; t runs over the frames, j over the K heads.

To add a pooling, write the class and its options in a module of this folder, and enter both in POOLINGS
(docs/extending.md).
"""

from nnet.poolings.attention import (
    AttentiveStatistics,
    ChannelAttentiveStatistics,
    ChannelOptions,
    DoubleMultiHead,
    DoubleOptions,
    GlobalMultiHead,
    GlobalOptions,
    HeadsOptions,
    MultiHeadAttention,
    MultiHeadMlp,
    MultiHeadOptions,
    PlainOptions,
    SelfAttentiveOptions,
    SelfAttentivePooling,
)
from nnet.poolings.cross_attention import CrossAttentive, CrossOptions
from nnet.poolings.factorised import FactorisedAttention, FactorisedOptions
from nnet.poolings.moments import NoOptions, StatisticsOptions, StatisticsPooling, TemporalPooling
from nnet.poolings.side_by_side import SideBySide, SideBySideOptions

POOLINGS = {
    "temporal": (TemporalPooling, NoOptions),
    "statistics": (StatisticsPooling, StatisticsOptions),
    "multi_head": (MultiHeadAttention, HeadsOptions),
    "self_attentive": (SelfAttentivePooling, SelfAttentiveOptions),
    "attentive_statistics": (AttentiveStatistics, PlainOptions),
    "channel_attentive_statistics": (ChannelAttentiveStatistics, ChannelOptions),
    "multi_head_mlp": (MultiHeadMlp, MultiHeadOptions),
    "global_multi_head": (GlobalMultiHead, GlobalOptions),
    "double_multi_head": (DoubleMultiHead, DoubleOptions),
    "multi_head_factorised": (FactorisedAttention, FactorisedOptions),
    "cross_attentive": (CrossAttentive, CrossOptions),
    "side_by_side": (SideBySide, SideBySideOptions),
}
