import torch

from egapipe.stages.distill.students.mobilenet_v2 import InvertedResidual, mobilenet_v2_half


def test_stage_outputs_at_half_width():
    maps = torch.randn(2, 3, 32, 32)
    shapes = []
    for layer in mobilenet_v2_half().layers:
        maps = layer(maps)
        shapes.append(tuple(maps.shape[1:3]))
    stem, stages, last = shapes[2], shapes[3:10], shapes[-1]
    assert stem == (16, 16)
    assert stages == [(8, 16), (12, 16), (16, 8), (32, 4), (48, 4), (80, 2), (160, 2)]
    assert last == (1280, 2)


def test_the_input_is_added_where_the_shape_stays():
    maps = torch.randn(2, 8, 4, 4)
    for outputs, stride, adds in ((8, 1, True), (8, 2, False), (12, 1, False)):
        block = InvertedResidual(8, outputs, stride, expansion=6)
        branch = block.layers(maps)
        assert torch.equal(block(maps), maps + branch if adds else branch)


def test_a_block_ends_without_activation():
    block = InvertedResidual(8, 12, 1, expansion=6)
    assert (block(torch.randn(4, 8, 4, 4)) < 0).any()
