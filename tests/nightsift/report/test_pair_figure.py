"""The picture of a subtraction: whatever the form of the frame, its panels fill the figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from nightsift.report.pair_figure import FRAMES, HIGHEST, WIDEST, arrange

RATIOS = (0.1, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 10.0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_panels_have_the_form_of_the_frame_and_fill_the_figure(ratio: float) -> None:
    layout = arrange(ratio)
    wide, high = layout.size
    assert wide <= WIDEST
    assert high <= HIGHEST
    figure = plt.figure(figsize=layout.size)
    axes = layout.add_panels(figure)
    boxes = [axis.get_position() for axis in axes]
    plt.close(figure)
    for box in boxes[:FRAMES]:
        assert box.width * wide / (box.height * high) == pytest.approx(ratio, rel=1e-6)
    for box in boxes[FRAMES:]:
        assert box.width * wide == pytest.approx(box.height * high)
    for k, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= 1
        assert box.y1 <= 1
        assert not any(box.overlaps(other) for other in boxes[:k])
    assert sum(box.width * box.height for box in boxes) > 0.5, "more than half is no margin"


@pytest.mark.parametrize(("ratio", "columns"), [(1.0, 3), (2.0, 2), (10.0, 1), (0.1, 6)])
def test_long_frames_lie_above_each_other(ratio: float, columns: int) -> None:
    assert arrange(ratio).columns == columns
