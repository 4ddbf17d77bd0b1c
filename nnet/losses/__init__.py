"""The losses by name, each with its options.

A loss is a module called with B x E outputs of the head and B labels. It returns the mean loss and the accuracy: the
share of rows whose speaker has the largest logit, before any margin. The trainer sets `margin_share` between 0 and 1,
the share of the margin that applies (margin warm-up).

To add a loss, write the class and its options (a LossOptions), and enter both in LOSSES (docs/extending.md). A loss
that needs several utterances of each speaker in a batch declares the option `utterances`.
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
