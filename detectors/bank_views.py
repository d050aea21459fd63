"""The arithmetic of records: how far each view of a point lies beyond its record, and how records are learnt.

Pure functions on arrays of shape (views, series); the state they work on belongs to ``detectors.bank``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from detectors.base import Flags, Floats, Rows

_GAIN: Final = 2.0  # a margin of half a standard deviation beyond the record is most of the way to a view's full voice
_FLOOR: Final = 0.01  # least standard deviation, as a share of the mean


class View:
    """Views of a point, and the parts of a view's state."""

    VALUE, CYCLE, SHIFT, STUDENTISED, LEVEL = range(5)
    COUNT = 5
    MEAN, VARIANCE, TOP, BOTTOM = range(4)
    PARTS = 4


class Judged(NamedTuple):
    """What the views make of each point; (n,) but for ``features`` (views, n)."""

    features: Floats
    raw: Floats  # sum over views of the margin beyond the record, each on a logarithmic scale
    beyond: Floats  # how many views are beyond their records, each counting up to 1
    direction: Floats  # of the most surprised view; of the value against its mean where none is
    leading: Rows  # the most surprised view
    usual: Floats  # what the hour of the week usually shows


def judge(features: Floats, views: Floats, seen: Floats) -> Judged:
    """Margins beyond the records, in standard deviations, summed over views. Sets the records of new series."""
    new = seen == 0
    if new.any():
        views[View.TOP] = np.where(new, features, views[View.TOP])
        views[View.BOTTOM] = np.where(new, features, views[View.BOTTOM])
    scale = np.sqrt(views[View.VARIANCE]) + _FLOOR * np.abs(views[View.MEAN]) + 1e-9
    above = features - views[View.TOP]
    below = views[View.BOTTOM] - features
    margin = np.maximum(np.maximum(above, below), 0.0) / scale
    leading = margin.argmax(axis=0)
    series = np.arange(margin.shape[1])
    up = np.where(
        margin[leading, series] > 0.0,
        above[leading, series] > 0.0,
        features[View.VALUE] >= views[View.MEAN, View.VALUE],
    )
    raw = np.log1p(_GAIN * margin).sum(axis=0)
    beyond = np.tanh(_GAIN * margin).sum(axis=0)
    return Judged(features, raw, beyond, np.where(up, 1.0, -1.0), leading, features[View.VALUE])


def learn_records(views: Floats, features: Floats, *, rate: Floats, learning: Flags, ageing: Floats) -> None:
    """Move records, means and variances of the learning series, in place.

    Shapes: ``views`` (parts, views, n), ``features`` (views, n), the rest (n,). ``rate`` is the weight of this point in
    mean and variance, ``ageing`` the share by which records shrink towards the mean.
    """
    rate = np.where(learning, rate, 0.0)
    mean, variance = views[View.MEAN], views[View.VARIANCE]
    error = features - mean
    mean += rate * error
    variance += rate * error * error
    variance *= 1.0 - rate
    shrink = np.where(learning, ageing, 0.0)
    top, bottom = views[View.TOP], views[View.BOTTOM]
    top -= shrink * (top - mean)
    bottom += shrink * (mean - bottom)
    np.maximum(top, np.where(learning, features, top), out=top)
    np.minimum(bottom, np.where(learning, features, bottom), out=bottom)
