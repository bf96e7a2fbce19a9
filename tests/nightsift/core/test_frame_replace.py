"""A frame shares the planes that do not change, and checks those that do."""

from __future__ import annotations

import numpy as np
import pytest


def test_planes_are_shared(make_frame):
    frame = make_frame(np.array([50.0]), np.array([50.0]), np.array([1e4]))
    before = frame.sky
    other = frame.replace(sky=before + 3.0)
    assert other.data is frame.data
    assert (other.sky, frame.sky) == (before + 3.0, before)


def test_new_planes_are_checked(make_frame):
    frame = make_frame(np.array([50.0]), np.array([50.0]), np.array([1e4]))
    data = frame.data.copy()
    data[200, 250] = np.nan
    with pytest.raises(ValueError, match="non-finite pixels must be masked"):
        frame.replace(data=data)
    with pytest.raises(ValueError, match="variance must be positive"):
        frame.replace(variance=np.zeros_like(data))


def test_unknown_names_are_refused(make_frame):
    frame = make_frame(np.array([50.0]), np.array([50.0]), np.array([1e4]))
    with pytest.raises(TypeError, match="skyy"):
        frame.replace(skyy=3.0)
