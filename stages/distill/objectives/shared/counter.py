"""Random numbers that are a function of a counter: no state, the same on every device."""

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def mix(counter: Tensor) -> Tensor:
    """SplitMix64 (Steele, Lea and Flood 2014) of int64 counters: int64, all bits random."""
    z = counter * GOLDEN
    _fold(z, 30).mul_(FIRST)
    _fold(z, 27).mul_(SECOND)
    return _fold(z, 31)


def below(bound: Tensor, bits: Tensor) -> Tensor:
    """Random int64 bits to integers in [0, bound), equally likely to within bound / 2^32.

    bound: int64, 1 to 2^31 - 1, broadcast against `bits`.
    """
    return _right(bits, 32).mul_(bound).bitwise_right_shift_(32)


def _fold(z: Tensor, places: int) -> Tensor:
    return z.bitwise_xor_(_right(z, places))


def _right(bits: Tensor, places: int) -> Tensor:
    """The shift that fills with zeros: torch's own copies the sign."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)
