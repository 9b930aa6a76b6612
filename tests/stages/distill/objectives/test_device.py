"""What a GPU asks for, shown without one by tensors of the device "meta", which have no values."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from egapipe.stages.distill.objectives import Sides
from egapipe.stages.distill.objectives.shared.edges import Edges
from tests.stages.distill.objectives.samples import (
    CONFIGS,
    SHAPES,
    build,
    gradients,
    pair,
    seen_by,
    tensors,
)

# Each makes a tensor of Python numbers in the host's memory and copies it, which waits.
COPIES = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor)
# Elementwise operations take a number of the host along as an argument of their kernel.
KERNEL_ARGUMENT = ("aten.add", "aten.sub", "aten.mul", "aten.div", "aten.pow", "aten.rsub")


class NoPythonNumbers(TorchFunctionMode):
    """Refuses tensors made of Python numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        listed = func is torch.Tensor.__getitem__ and any(
            isinstance(index, list) for index in (args[1], *_parts(args[1]))
        )
        if listed or func in COPIES:
            raise AssertionError(f"{func} makes a tensor of Python numbers")
        return func(*args, **(kwargs or {}))


def _parts(index):
    return index if isinstance(index, tuple) else ()


class NoneFromTheHost(TorchDispatchMode):
    """Refuses operations that bring a tensor of the host to the device: a copy that waits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)]
        made = func(*args, **(kwargs or {}))
        there = [leaf for leaf in tree_leaves(made) if torch.is_tensor(leaf) and leaf.is_meta]
        from_host = any(leaf.device.type == "cpu" for leaf in given)
        if there and from_host and not str(func).startswith(KERNEL_ARGUMENT):
            raise AssertionError(f"{func} takes a tensor of the host to the device")
        return made


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_stays_on_its_device_and_never_waits_for_a_value(name, monkeypatch):
    """A tensor made on another device raises, and so does a look at a value, which on a GPU would
    wait for everything before it, and a tensor made of Python numbers, whose copy would."""
    # torch has no autocast for this device.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    objective = build(name, torch.float32)
    for _ in range(2):  # crd measures its normalisers, and then looks whether it has
        objective(seen_by(objective, pair(8, torch.float32)))
    batch = seen_by(objective, pair(8, torch.float32))
    moved = {
        k: v.detach().to("meta").requires_grad_(v.requires_grad) for k, v in tensors(batch).items()
    }
    there = replace(
        batch,
        **{name: value for name, value in moved.items() if "." not in name},
        edges=Edges(*(one.to("meta") for one in batch.edges)),
        features={n: Sides(moved[f"{n}.student"], moved[f"{n}.teacher"]) for n in SHAPES},
    )
    objective.to("meta")
    with NoPythonNumbers(), NoneFromTheHost():
        loss, _ = objective(there)
        loss.backward()
    assert loss.device.type == "meta"
    assert gradients(there)


@pytest.mark.parametrize(
    "copies",
    [
        lambda rows: rows[torch.zeros(2, dtype=torch.int64)],
        lambda rows: rows * rows.new_tensor(2.0),
        lambda rows: rows + torch.tensor([1.0, 2.0], device=rows.device),
        lambda rows: rows[[0, 1]],
    ],
)
def test_the_check_sees_what_it_is_for(copies):
    rows = torch.zeros(2, 2, device="meta")
    with (
        NoPythonNumbers(),
        NoneFromTheHost(),
        pytest.raises(AssertionError, match=r"numbers|host"),
    ):
        copies(rows)
