"""Which augmented views of an image there are."""

from typing import Literal, Self

from pydantic import model_validator

from egapipe.pipeline.config.base import AboveZero, Count, Fraction, Positive, Real, Section, Seed


class ViewMix(Section):
    """Augmented views with the same view of another image in them (mixup, arXiv 1710.09412).

    A row has one partner; how much of it a view has is drawn for each view, half or less. The
    pixels are mixed, in whole grey levels, before the teacher sees them.
    """

    alpha: AboveZero = 1.0
    """Shares are drawn from Beta(alpha, alpha): 1 is evenly, less is nearer to one of both."""
    probability: Fraction = 1.0
    """Share of the views that it is done to."""
    among: Positive | None = None
    """Partners are among so many first rows. Default: all that there are when a store is made, also
    for rows that are appended to it."""


class ViewsConfig(Section):
    """A view plan: view 0 is the clean image, views 1 to `count` are augmented.

    A view is a pure function of (plan, key, view number), see `egapipe.pipeline.views`.
    """

    seed: Seed = 0
    """Seed of all views."""
    count: Count = 4
    """Augmented views an image, beside the clean one."""
    crop: Literal["none", "pad", "scale"] = "pad"
    """`pad`: the image padded by `padding`, a crop of its own size; `scale`: a crop of random area
    and aspect ratio, as in random resized crops."""
    padding: Fraction = 0.125
    """For `pad`: padding on each side as a share of the image's side (4 pixels of 32 = 0.125)."""
    scale: tuple[Real, Real] = (0.25, 1.0)
    """For `scale`: least and largest area as a share of the image's."""
    ratio: tuple[Real, Real] = (0.75, 4 / 3)
    """For `scale`: least and largest aspect ratio, width / height."""
    flip: Fraction | Literal["alternating"] = 0.5
    """Probability of a horizontal flip; `alternating`: every second view of an image, for a student
    every second epoch (arXiv 2404.00498)."""
    aspect: Literal["keep", "stretch"] | None = None
    """What becomes of images that are not square, for `none`, `pad` and clean views. `keep`: a
    square as wide as the shorter side is cut out of them; `stretch`: the whole of them is squashed
    into the input. Default, for a teacher: as it prepares clean images itself, or as a store has it
    that is there already; for a student: as its teacher's views."""
    turns: Literal[1, 4] = 1
    """4: augmented views come in fours, turned by 0, 90, 180 and 270 degrees against the clock. The
    four have one flip and a crop each, the first is not turned, and `count` is of all of them."""

    mix: ViewMix | None = None
    """Mixtures of two images; default: none. A student of such views has `student_view: paired`."""

    @property
    def plain(self) -> int:
        """How many of the augmented views are not turned."""
        return self.count // self.turns

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        low, high = self.scale
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"scale must be 0 < low <= high <= 1, got {low}, {high}")
        low, high = self.ratio
        if not 0.0 < low <= high:
            raise ValueError(f"ratio must be 0 < low <= high, got {low}, {high}")
        return self

    @model_validator(mode="after")
    def _whole_fours(self) -> Self:
        if self.count % self.turns:
            raise ValueError(
                f"views with turns {self.turns} come in fours: count {self.count} must be 4, 8, 12 "
                "and so on"
            )
        return self
