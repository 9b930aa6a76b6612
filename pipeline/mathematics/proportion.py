"""How sure a share is that was counted: so many hits of so many."""

import math

from scipy.special import ndtri


def interval(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The ends of Wilson's score interval of a binomial proportion, each 0 to 1.

    Wilson, JASA 1927: unlike a mean with its standard error it has a width at 0 and at 1, and stays
    between them. Nothing counted says nothing: 0 to 1.
    """
    if of == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    share, weight = hits / of, z * z / of
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    # Exactly, where rounding would leave a difference.
    return 0.0 if hits == 0 else middle - half, 1.0 if hits == of else middle + half
