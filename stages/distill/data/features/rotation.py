"""The rotation after which every entry of an embedding varies alike."""

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def equal_variances(covariance: Doubles) -> Doubles:
    """Orthogonal R [D, D] with which R C R' has the mean of C's eigenvalues all along its diagonal.

    R = H U', with U the eigenvectors of C (PHI-S, arXiv 2410.01680, section 2.4): where a Hadamard
    matrix of D rows is at hand H is that one, over sqrt(D), and mixes all axes alike; for other D
    plane rotations make the diagonal equal (Bendel and Mickey 1978).
    """
    values, axes = np.linalg.eigh(covariance)
    # Either sign is an eigenvector: the largest entry decides, not the library.
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(len(axes))])
    hadamard = hadamard_matrix(len(values))
    mixed = levelling(values) if hadamard is None else hadamard / math.sqrt(len(values))
    rotation: Doubles = mixed @ axes.T
    return rotation


def hadamard_matrix(order: int) -> Doubles | None:
    """[n, n] of 1 and -1 with orthogonal rows; None for an order that these do not make.

    By Sylvester's doubling from 1, or from q + 1 with a prime q = 3 mod 4 (Paley 1933): 384, 512,
    768, 1024, 1152, 1280, 1408, 1536 and 2048 are among them.
    """
    if order == 1:
        return np.ones((1, 1))
    if order % 2:
        return None
    smaller = hadamard_matrix(order // 2)
    if smaller is not None:
        return np.block([[smaller, smaller], [smaller, -smaller]])
    return _paley(order - 1) if order % 4 == 0 and _is_prime(order - 1) else None


def _paley(prime: int) -> Doubles:
    """Paley's first construction, of order prime + 1."""
    residue = np.full(prime, -1.0)
    residue[np.square(np.arange(1, prime)) % prime] = 1.0
    residue[0] = 0.0
    places = np.arange(prime)
    skew = np.zeros((prime + 1, prime + 1))
    skew[0, 1:], skew[1:, 0] = 1.0, -1.0
    skew[1:, 1:] = residue[(places[:, None] - places[None, :]) % prime]
    return skew + np.eye(prime + 1)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def levelling(values: Doubles) -> Doubles:
    """Orthogonal Q [n, n] with which Q diag(values) Q' has one number along its diagonal.

    n - 1 rotations in a plane: each takes an entry below the mean and one above it and makes the
    first of them the mean.
    """
    matrix, rotation = np.diag(values), np.eye(len(values))
    mean = values.mean()
    least = 1e-12 * max(np.abs(values).max(), np.finfo(np.float64).tiny)
    for _ in range(len(values) - 1):
        apart = matrix.diagonal() - mean
        low, high = int(apart.argmin()), int(apart.argmax())
        if max(-apart[low], apart[high]) <= least:
            break
        between = matrix[low, high]
        root = math.sqrt(max(0.0, between**2 - apart[low] * apart[high]))
        tangent = (root - between) / apart[high]
        cosine = 1 / math.hypot(1.0, tangent)
        turn = cosine * np.array([[1.0, tangent], [-tangent, 1.0]])
        pair = [low, high]
        matrix[pair] = turn @ matrix[pair]
        matrix[:, pair] = matrix[:, pair] @ turn.T
        rotation[pair] = turn @ rotation[pair]
    return rotation
