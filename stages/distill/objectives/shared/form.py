"""How a loss over the B x B graph is computed."""

from typing import Literal, get_args

Form = Literal["auto", "direct", "factored"]


def check_form(form: str) -> None:
    """Raise ValueError unless it is one of `Form`."""
    if form not in get_args(Form):
        raise ValueError(f"form {form!r} is none of {', '.join(get_args(Form))}")
