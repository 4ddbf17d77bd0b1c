"""Agglomerative clustering of windows by their scores."""

from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

MOST = 3000  # windows that are clustered; all others join the nearest cluster: 36 MB of scores, not 800 for an hour
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows, rows -> their scores


def crossing(scores: np.ndarray, iterations: int = 20) -> float:
    """Return the score at which two Gaussians with one variance, fitted to all scores by EM, are equally probable.

    The upper one stands for pairs of one speaker. Scores that are all alike are their own crossing.
    """
    values = scores.reshape(-1).astype(np.float64)
    deviation = values.std()
    if not deviation > 1e-9 * max(1.0, abs(values.mean())):
        return float(values.mean())
    means, share, variance = values.mean() + deviation * np.array([-1.0, 1.0]), 0.5, deviation**2
    for _ in range(iterations):
        odds = np.log(share / (1 - share)) + (means[1] - means[0]) / variance * (values - means.mean())
        upper = 0.5 * (1 + np.tanh(odds / 2))
        share = float(np.clip(upper.mean(), 1e-6, 1 - 1e-6))
        means = np.array([(1 - upper) @ values / (1 - upper).sum(), upper @ values / upper.sum()])
        variance = float(((1 - upper) * (values - means[0])**2 + upper * (values - means[1])**2).mean())
    return float(means.mean() - variance * np.log(share / (1 - share)) / (means[1] - means[0]))


def clustered(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the cluster, from 0, of each of N items: the mean score between two clusters is below the threshold.

    scores: N x N, higher for items of one speaker; made symmetric.
    """
    if len(scores) == 1:
        return np.zeros(1, int)
    symmetric = (scores + scores.T) / 2
    top = symmetric.max()
    distances = top - symmetric
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    return fcluster(tree, top - threshold, "distance") - 1


def cluster_windows(score: Score, windows: np.ndarray, bias: float) -> np.ndarray:
    """Return the cluster, from 0, of each window (N x 2 times); bias: added to the threshold, the higher the more."""
    count = len(windows)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
    scores = score(chosen, chosen)
    starts, ends = windows[chosen].T
    # Windows that overlap are alike because of the samples that they share, not because of their speaker.
    apart = (starts[:, None] >= ends) | (starts >= ends[:, None])
    labels = clustered(scores, crossing(scores[apart] if apart.any() else scores) + bias)
    if len(chosen) == count:
        return labels
    members = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float32)
    found = np.empty(count, int)
    for rows in np.array_split(np.arange(count), -(-count // MOST)):
        found[rows] = (score(rows, chosen) @ members / members.sum(axis=0)).argmax(axis=1)
    found[chosen] = labels
    return found
