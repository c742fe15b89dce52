"""Operating modes as groups of an enrolment's moments: runs of steady indicators that are far apart for their scatter.

Single linkage: two moments belong together where a chain of small steps leads from one to the other, so that a slow
drift stays one mode, and only a gap in what was seen makes two. Units are what the machine itself does from one moment
to the next, so that the rule has one threshold for every kind of channel.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fisher_agent.features import LEAST_SPREAD
from fisher_agent.stages import Floats

Doubles = NDArray[np.float64]
SMOOTHED = 5  # moments whose median stands for the middle one: what scatters shrinks, what is another mode stays
APART = 1.5
"""Root mean square over the indicators, in units of what they typically move by from one moment to the next.

Measured: within one speed the nearest moment lies within 0.9 (motor current) and 0.6 (fan); between two speeds 7.7 and
2.3 at the least (tools/mode_report.py).
"""
MOST_LINKED = 2000  # moments: linking takes the square of them; of a longer enrolment every second one, and so on
LEAST_GROUP = 10  # moments: fewer cannot be learnt (survey.MIN_WINDOWS)
MAD_TO_SIGMA = 1.4826


def groups(moments: Sequence[Mapping[str, Floats]]) -> NDArray[np.intp]:
    """Features (k,) by channel of moments (m,), in order -> the group (m,) of each, numbered by first use.

    -1 is a moment that belongs to none that could be learnt. Only channels that are in every moment count.
    """
    common = []
    for channel in moments[0] if moments else ():
        lengths = {len(m.get(channel, ())) for m in moments}
        if len(lengths) == 1 and 0 not in lengths:
            common.append(channel)
    if not common:
        return np.zeros(len(moments), np.intp)
    rows = np.stack([np.concatenate([m[c] for c in common]) for m in moments]).astype(np.float64)
    # A step between two modes is rare, so the median of steps is one of normal running.
    steps = np.abs(np.diff(rows, axis=0))
    spread = np.maximum(MAD_TO_SIGMA * np.median(steps, axis=0), LEAST_SPREAD) if len(steps) else np.ones(rows.shape[1])
    half = SMOOTHED // 2
    smooth = np.stack([np.median(rows[max(0, i - half) : i + half + 1], axis=0) for i in range(len(rows))]) / spread
    some = np.arange(0, len(smooth), 1 + len(smooth) // MOST_LINKED)
    label = _nearest(smooth, smooth[some], _linked(smooth[some]))
    kept = [g for g in dict.fromkeys(label.tolist()) if g >= 0 and (label == g).sum() >= LEAST_GROUP]
    number = {g: n for n, g in enumerate(kept)}
    return np.asarray([number.get(g, -1) for g in label.tolist()], dtype=np.intp)


def _nearest(rows: Doubles, known: Doubles, label: NDArray[np.intp]) -> NDArray[np.intp]:
    """The label (m,) of the nearest known row; -1 where that is not of the same group either."""
    out = np.full(len(rows), -1, np.intp)
    for i, row in enumerate(rows):
        distance = np.sqrt(np.square(known - row).mean(axis=1))
        at = int(distance.argmin())
        if distance[at] <= APART:
            out[i] = label[at]
    return out


def _linked(rows: Doubles) -> NDArray[np.intp]:
    """Connected components (m,) under the threshold."""
    label = np.full(len(rows), -1, np.intp)
    for seed in range(len(rows)):
        if label[seed] >= 0:
            continue
        label[seed] = seed
        front = [seed]
        while front:
            at = front.pop()
            near = np.sqrt(np.square(rows - rows[at]).mean(axis=1)) <= APART
            for other in np.flatnonzero(near & (label < 0)):
                label[other] = seed
                front.append(int(other))
    return label
