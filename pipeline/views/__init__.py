"""Views: which part of an image did the teacher see, which way round, and with what in it?

A view is a pure function of (plan, key, view number, image size). Nothing is stored per sample, and
any process replays any view. View 0 is the clean image; views 1, 2, ... are augmented.

The same views come out on every platform, but for what goes through a logarithm, an exponential or
a quantile: their last bit may differ between processors. A side of a scaled crop then differs by a
pixel, a share of a mixture by one part of 65,536, in less than one of 10^12 views.
"""

from egapipe.pipeline.views.boxes import (
    Boxes,
    View,
    apply_view,
    clean_part,
    margins,
    view_boxes,
    view_params,
)
from egapipe.pipeline.views.draws import Hashes, further_draws, key_hashes
from egapipe.pipeline.views.mixtures import WHOLE, blended, drawn_shares, own_shares, partners
from egapipe.pipeline.views.plans import (
    CLEAN,
    METHOD,
    plan_hash,
    quarter_turns,
    settled,
    teacher_views,
)

__all__ = [
    "CLEAN",
    "METHOD",
    "WHOLE",
    "Boxes",
    "Hashes",
    "View",
    "apply_view",
    "blended",
    "clean_part",
    "drawn_shares",
    "further_draws",
    "key_hashes",
    "margins",
    "own_shares",
    "partners",
    "plan_hash",
    "quarter_turns",
    "settled",
    "teacher_views",
    "view_boxes",
    "view_params",
]
