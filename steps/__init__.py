import utils  # noqa: F401  (first, so that Ctrl-C during the other imports ends quietly)
