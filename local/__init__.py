import utils  # noqa: F401  (imported first: Ctrl-C during the other imports then ends quietly)
