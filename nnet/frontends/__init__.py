"""Front ends: from samples to the frames that the encoder takes.

Every front end is a Frontend (nnet/frontends/interface.py), made with its options, with the options of the training
data's features (utils.features.model_features.Options), and with the number F of values per frame of these.

To add a front end, write the class and its options in a module of this folder, and enter both in FRONTENDS
(docs/extending.md).
"""

from nnet.frontends.kaldi import KaldiFrontend
from utils.features.frontend import FrontendOptions

FRONTENDS = {
    "kaldi": (KaldiFrontend, FrontendOptions),  # MFCC or log mel energies, as the feature file says
}
