"""ONNX as it is asked for: named dimension, opset, and lower precision with what it costs."""

from pathlib import Path

import pytest

from egapipe.pipeline.errors import UsageError
from egapipe.stages import export, predict
from egapipe.stages.export.command import table_lines
from tests.stages.export.students import order_of
from tests.stages.export.test_export import images


@pytest.mark.slow
def test_lower_precisions_say_how_often_they_agree(finished: Path, tmp_path: Path) -> None:
    import onnx

    formats = ["onnx-fp16", "onnx-int8", "onnx"]
    report = export.run(finished, to=tmp_path / "out", formats=formats, opset=20)
    fp16, int8, exact = report.files
    assert exact.agreement is None
    assert int8.bytes < 0.6 * exact.bytes
    assert fp16.bytes < 0.7 * exact.bytes
    for file in (fp16, int8):
        found = file.agreement
        assert found is not None
        assert (found.split, found.images, found.labelled) == ("test", 360, 360)
        assert found.same > 90
        assert found.top1 == pytest.approx(found.student_top1, abs=10)
    for file in report.files:
        model = onnx.load(tmp_path / "out" / file.file)
        [given] = model.graph.input
        assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert {i.version for i in model.opset_import if i.domain == ""} >= {20}
        answers = [
            predict.load_predictor(tmp_path / "out" / file.file).run(images(n)) for n in (1, 5)
        ]
        assert [len(one[0]) for one in answers] == [1, 5]
    shown = "\n".join(table_lines(report))
    assert (
        f"model-int8.onnx: the student's class on {int8.agreement.same:.2f} % of 360 test" in shown
    )
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "- `model-int8.onnx`: the student's class on" in card


def test_an_opset_that_torch_does_not_write_is_refused_at_once(finished: Path) -> None:
    with pytest.raises(UsageError, match="torch writes 18 and later"):
        export.run(finished, opset=11)


def test_a_program_of_torch_predicts_where_it_is_trusted(tmp_path: Path) -> None:
    from egapipe.stages.export.programs import write_program

    order = order_of("resnet8", {}, tmp_path)
    write_program(order)
    found = predict.load_predictor(tmp_path / "model.pt2", trust_remote_code=True)
    assert found.spec == order.spec
    for one, other in zip(
        found.run(order.calibration), order.module(order.calibration), strict=True
    ):
        assert one == pytest.approx(other.detach().numpy(), abs=1e-4)
