"""The losses by name, each with its options.

Each is a module called with B x E embeddings (what the head hands on) and B labels; it returns the mean
loss and the accuracy, the share of rows whose speaker has the largest logit without margin. `margin_share`, set by
the trainer from 0 to 1, is how much of the margin applies (margin warm-up).

To add one: write the class and its options (a LossOptions), and enter both in LOSSES. A loss over batches of so many
utterances of each speaker says so by the option `utterances`.
"""

from nnet.losses.prototypical import Prototypical, PrototypicalOptions
from nnet.losses.softmax import ASoftmax, ASoftmaxOptions, LossOptions, MarginOptions, MarginSoftmax, Softmax

LOSSES = {
    "softmax": (Softmax, LossOptions),
    "a_softmax": (ASoftmax, ASoftmaxOptions),
    "am_softmax": (MarginSoftmax, MarginOptions),
    "aam_softmax": (MarginSoftmax, MarginOptions),
    "prototypical": (Prototypical, PrototypicalOptions),
    "normalised_prototypical": (Prototypical, PrototypicalOptions),
    "angular_prototypical": (Prototypical, PrototypicalOptions),
}
