"""What every section of the configuration shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict


class Section(BaseModel):
    """One concern of the configuration: immutable, unknown keys refused, each field described by
    the text below it, which nothing reads while a command waits."""

    model_config = ConfigDict(
        # Once, with the tree that it is in, and not by itself as well.
        defer_build=True,
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


# Strict: pydantic would take `true` for 1 and "5" for 5. An integer still is a Real.
Integer = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
Positive = Annotated[Integer, Field(ge=1)]
Count = Annotated[Integer, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[Real, Field(ge=0.0)]
AboveZero = Annotated[Real, Field(gt=0.0)]
# The order of an epoch is drawn from 32 bits of the seed: larger ones would repeat smaller ones.
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
"""The form of `module:callable`."""
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""What outputs, teachers, students and pairs of features may be called."""
# The keys of the sections of which there are several sorts: their value says which others fit.
CHOICES = ("kind", "backend")
