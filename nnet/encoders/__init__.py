"""Encoders: from the frames of the front end to the frames that are pooled.

Every encoder is a module with `output_dim`, `receptive_field` (the fewest input frames that it takes) and `stride`
(input frames from one output frame to the next; None: there is only one), called with
    x        B x T x F   frames
    lengths  B           frames of each utterance that count; None: all T
and returns B x T' x output_dim and the lengths of the result. Frames beyond an utterance never change its result.

To add an encoder, write the class and its options in a module of this folder, and enter both in ENCODERS
(docs/extending.md).
"""

from nnet.encoders.ecapa import Ecapa, EcapaOptions
from nnet.encoders.plain import Plain, PlainOptions
from nnet.encoders.resnet import ResNet, ResNetOptions
from nnet.encoders.saep import Saep, SaepOptions
from nnet.encoders.sc_resnet import ScResNet, ScResNetOptions
from nnet.encoders.side_by_side import EncodersOptions, EncodersSideBySide
from nnet.encoders.tdnn import Tdnn, TdnnOptions
from nnet.encoders.vgg import Vgg, VggOptions

ENCODERS = {
    "tdnn": (Tdnn, TdnnOptions),
    "vgg": (Vgg, VggOptions),
    "resnet": (ResNet, ResNetOptions),
    "saep": (Saep, SaepOptions),
    "ecapa": (Ecapa, EcapaOptions),
    "sc_resnet": (ScResNet, ScResNetOptions),
    "none": (Plain, PlainOptions),
    "side_by_side": (EncodersSideBySide, EncodersOptions),
}
