"""Front ends: from samples to the frames that the encoder takes.

Every front end is a Frontend (nnet/frontends/interface.py). Its constructor takes its options, the options of the
training data's features (utils.features.model_features.Options), and the number F of their values per frame.

To add a front end, write the class and its options in a module of this folder, and enter both in FRONTENDS
(docs/extending.md).
"""

from nnet.frontends.kaldi import KaldiFrontend
from nnet.frontends.self_supervised import SelfSupervised, SelfSupervisedOptions
from utils.features.frontend import FrontendOptions

FRONTENDS = {
    "kaldi": (KaldiFrontend, FrontendOptions),  # MFCC or log mel energies, by the feature file
    "self_supervised": (SelfSupervised, SelfSupervisedOptions),  # WavLM, HuBERT, wav2vec 2.0, w2v-BERT 2.0
}
