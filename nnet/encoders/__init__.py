"""Encoders: from the frames of the front end to those that are pooled.

Every encoder is a module with `output_dim` and `receptive_field` (frames in for one frame out), called with
    x        B x T x F   frames
    lengths  B           frames of each utterance that count; None: all T
and returns B x T' x output_dim and the lengths of the result. What lies beyond an utterance's length never changes it.

To add one: write the class and its options in a module of this folder, and enter both in ENCODERS.
"""

from nnet.encoders.ecapa import Ecapa, EcapaOptions
from nnet.encoders.resnet import ResNet, ResNetOptions
from nnet.encoders.saep import Saep, SaepOptions
from nnet.encoders.sc_resnet import ScResNet, ScResNetOptions
from nnet.encoders.tdnn import Tdnn, TdnnOptions
from nnet.encoders.vgg import Vgg, VggOptions

ENCODERS = {
    "tdnn": (Tdnn, TdnnOptions),
    "vgg": (Vgg, VggOptions),
    "resnet": (ResNet, ResNetOptions),
    "saep": (Saep, SaepOptions),
    "ecapa": (Ecapa, EcapaOptions),
    "sc_resnet": (ScResNet, ScResNetOptions),
}
