"""The random numbers of views.

They are counter-based: the key is hashed to 64 bits once, and draw `j` of view `k` is the
SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) of that hash, the plan's seed, `k` and
`j`. The same draws come out on every platform.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_DRAWS = 5


def key_hashes(keys: Iterable[str]) -> Hashes:
    """64-bit BLAKE2b hashes of keys, uint64 [N]: the counters of all draws."""
    digests = b"".join(hashlib.blake2b(k.encode(), digest_size=8).digest() for k in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def further_draws(
    seed: int, hashes: Hashes, k: Ints, first: int, count: int
) -> npt.NDArray[np.float64]:
    """More random numbers of views, behind those of crop and flip: float64 [N, count] in [0, 1),
    from the `first` on, counted from 0. A function of (seed, key, k) and of their place alone."""
    return uniforms(seed, hashes, k, range(_DRAWS + first, _DRAWS + first + count))


def uniforms(
    seed: int, hashes: Hashes, ks: Ints, draws: range = range(_DRAWS)
) -> npt.NDArray[np.float64]:
    """float64 [N, draws] in [0, 1), a function of (seed, key, k) and the draw's number alone."""
    stream = mix64(hashes ^ mix64(u64(seed) ^ mix64(ks.astype(np.uint64) * GOLDEN + GOLDEN)))
    counters = ((np.array(draws, dtype=np.uint64) + np.uint64(1)) * GOLDEN)[None, :]
    return (mix64(stream[:, None] + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def u64(value: int) -> Hashes:
    """An integer modulo 2^64, uint64 [1]."""
    return np.array([value & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)


def mix64(x: Hashes) -> Hashes:
    """The SplitMix64 finaliser: a bijection of 64-bit integers; arithmetic wraps by intent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
