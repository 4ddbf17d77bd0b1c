"""Bayesian HMM clustering of x-vector sequences: VBx.

Landini, Profant, Diez, Burget: "Bayesian HMM clustering of x-vector sequences (VBx) in speaker diarization: theory,
implementation and analysis on standard tasks" (Computer Speech & Language 2022). Equation numbers are the paper's.

A state of the HMM is a speaker. With s, s' = 1..S speakers, t = 1..T vectors, and D dimensions, in the space of PLDA
where the within-speaker covariance is I and the between-speaker covariance diag(Phi):

    p(s | s') = (1 - P_loop) pi_s + [s = s'] P_loop          (1)
    p(x_t | y_s) = N(x_t; V y_s, I),  V = diag(Phi)^(1/2)     (5), (6);  y_s ~ N(0, I)

The posterior is taken as q(Y) q(Z). F_A scales the log-likelihoods, since neighbouring windows overlap; F_B scales the
prior of the speakers: the larger, the fewer speakers remain.
"""

from typing import NamedTuple

import numpy as np

TINY = 1e-300  # least probability of a speaker, so that no vector becomes impossible


class Passed(NamedTuple):
    """gamma: T x S, the speakers' probabilities (19); switches: S, the expected switches to each; log_p: (22)."""

    gamma: np.ndarray
    switches: np.ndarray
    log_p: float


class Clustering(NamedTuple):
    """gamma: T x S, probabilities of the speakers; pi: S; elbos: the lower bound after each iteration."""

    gamma: np.ndarray
    pi: np.ndarray
    elbos: list[float]


def forward_backward(log_p: np.ndarray, pi: np.ndarray, loop: float) -> Passed:
    """Pass through the HMM with log-likelihoods T x S: (19) to (22), each vector's forward values scaled to the sum 1.

    Because of (1), a pass takes T S operations, not T S^2: every switch passes through one sum over all speakers.
    """
    largest = log_p.max(axis=1)
    p = np.exp(log_p - largest[:, None])
    forward, backward, scales = np.empty_like(p), np.ones_like(p), np.empty(len(p))
    before = pi
    for t, row in enumerate(p):  # (20)
        reached = row * before
        scales[t] = reached.sum()
        forward[t] = reached / scales[t]
        before = loop * forward[t] + (1 - loop) * pi
    for t in range(len(p) - 2, -1, -1):  # (21)
        after = p[t + 1] * backward[t + 1]
        backward[t] = (loop * after + (1 - loop) * (pi @ after)) / scales[t + 1]
    switches = (1 - loop) * pi * (p[1:] * backward[1:] / scales[1:, None]).sum(axis=0)
    return Passed(forward * backward, switches, float(np.log(scales).sum() + largest.sum()))


def vbx(x: np.ndarray, phi: np.ndarray, gamma: np.ndarray, fa: float, fb: float, loop: float, iterations: int = 40,
        epsilon: float = 1e-4) -> Clustering:
    """Cluster T x D vectors of one recording, from first probabilities gamma, T x S, of the most speakers there may be.

    phi: D, the between-speaker variances. Stops after `iterations`, or when the lower bound rises by less than epsilon.
    """
    pi = np.full(gamma.shape[1], 1 / gamma.shape[1])
    constant = -0.5 * (np.square(x).sum(axis=1, keepdims=True) + x.shape[1] * np.log(2 * np.pi))  # of t in (23)
    rho = x * np.sqrt(phi)  # (18): V^T x_t
    elbos: list[float] = []
    while len(elbos) < iterations:
        variance = 1 / (1 + fa / fb * gamma.sum(axis=0)[:, None] * phi)  # (17): the diagonal of L_s^-1, S x D
        alpha = fa / fb * variance * (gamma.T @ rho)  # (16)
        log_p = fa * (rho @ alpha.T - 0.5 * (variance + alpha**2) @ phi + constant)  # (23)
        gamma, switches, log_all = forward_backward(log_p, pi, loop)
        elbos.append(log_all + fb / 2 * float((1 + np.log(variance) - variance - alpha**2).sum()))  # (25)
        pi = gamma[0] + switches  # (24)
        pi = np.maximum(pi / pi.sum(), TINY)
        if len(elbos) > 1 and elbos[-1] - elbos[-2] < epsilon:
            break
    return Clustering(gamma, pi, elbos)
