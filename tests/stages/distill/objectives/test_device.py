"""What a GPU asks for, shown without one by tensors of the device "meta", which have no values."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from tests.stages.distill.objectives.samples import CONFIGS, build, gradients, pair


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_stays_on_its_device_and_never_waits_for_a_value(name, monkeypatch):
    """A tensor made on another device raises, and so does a look at a value, which on a GPU would
    wait for everything before it."""
    # torch has no autocast for this device.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    objective = build(name, torch.float32)
    for _ in range(2):  # crd measures its normalisers, and then looks whether it has
        objective(pair(8, torch.float32))
    batch = pair(8, torch.float32)
    tensors = {k: v for k, v in vars(batch).items() if torch.is_tensor(v)}
    there = replace(
        batch,
        **{k: v.detach().to("meta").requires_grad_(v.requires_grad) for k, v in tensors.items()},
    )
    loss, _ = objective.to("meta")(there)
    loss.backward()
    assert loss.device.type == "meta"
    assert gradients(there)
