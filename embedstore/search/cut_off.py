"""From which score on an item fits a text: what unrelated texts reach in the same collection is the measure.

Each of some reference texts is searched for, and its best score is kept. Most collections hold nothing of most of them,
so these scores are what the best of many wrong items reaches. A text about something that is absent as they are is one
more of the same kind, so its best score lies above the cut-off in at most a share ``alpha`` of such texts, whatever the
space and the collection (split conformal prediction, Vovk et al. 2005). Where some references are present, their
scores are high and the cut-off is stricter, never laxer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_NOUNS = (
    "accordion anvil aquarium avalanche bagpipe bakery ballet-dancer barometer beehive blast-furnace "
    "blueprint bonsai cactus calculator canoe carousel castle cathedral chainsaw chess-board chimney "
    "cocktail compass concert-stage coral-reef crossword cuckoo-clock dentist desert diesel-engine "
    "dragonfly drum escalator excavator fax-machine fencing-match ferris-wheel fire-truck fireplace "
    "flute foundry fountain galaxy glacier globe gondola grave greenhouse guitar hammock harbor-crane "
    "harp helicopter hockey-goal hot-air-balloon hourglass iceberg igloo jellyfish kaleidoscope "
    "lawn-mower lighthouse lobster locomotive loom mailbox marionette microscope mosaic mushroom "
    "observatory oil-painting oil-rig orchid ostrich pagoda parachute passport periscope piano pizza "
    "polar-bear printed-circuit pumpkin pyramid quilt rickshaw rocket-launch saxophone scorpion "
    "sewing-machine skeleton snowman spider-web stained-glass-window submarine suit-of-armor sundial "
    "surgeon telescope tennis-court theater-curtain tractor traffic-jam trampoline treadmill trombone "
    "typewriter vending-machine vineyard violin volcano waterfall wedding-cake wheelchair "
    "wind-turbine windmill xylophone zeppelin "
)
# Things of very different kinds, of which few collections hold more than a few.
REFERENCES = tuple(f"{'an' if noun[0] in 'aeio' else 'a'} {noun.replace('-', ' ')}" for noun in _NOUNS.split())


def alpha_of(strictness: float) -> float | None:
    """Return the share of absent texts that may have a hit: 5% at 0.5, 1% at 1; None shows everything.

    Args:
        strictness: from 0 to 1.
    """
    return None if strictness <= 0 else 0.25 * 0.04**strictness


def cut_off(best_scores: NDArray[np.floating], alpha: float) -> float:
    """Return the least score that fits.

    Args:
        best_scores: ``(n,)`` the best score of each reference text.
        alpha: the share of absent texts that may have a hit.

    Returns:
        The ``ceil((1 - alpha) (n + 1))``-th smallest score, or a little more than the greatest where ``n`` is too small
        for the share.
    """
    ordered = np.sort(best_scores)
    place = math.ceil((1 - alpha) * (len(ordered) + 1))
    return float(np.nextafter(ordered[place - 1] if place <= len(ordered) else ordered[-1], np.inf))
