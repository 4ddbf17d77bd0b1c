import utils  # noqa: F401  (first of all: Ctrl-C during the other imports ends quietly)
