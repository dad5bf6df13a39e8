"""`liftlock init DIR`: a starting spec, suite and small data set that run as they are, to be replaced by somebody's own.

It writes files and nothing else: no model, no stack, no network.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from tasks.spec import NAME

PRAISE = {
    "train": (
        "The soup was hot, the bread was fresh and nobody rushed us.",
        "Lovely staff, they even found a high chair for our youngest.",
        "Best coffee on this street by a mile.",
        "Our table by the window was ready when we came.",
        "I will come back for the lemon cake alone.",
        "Everything was spotless, the kitchen included.",
        "Quick, friendly and cheaper than I expected.",
        "What a kind waiter; he remembered my order from last week.",
        "The garden is a delight on a warm evening.",
        "Generous portions and a very fair bill.",
        "They warmed the milk for my baby without being asked.",
        "A perfect lunch break, thank you all.",
    ),
    "test": (
        "Such a warm welcome, and the pancakes were wonderful.",
        "The chef came out to ask whether we had enjoyed it.",
        "Great value and a charming view of the river.",
        "My grandmother called it the nicest meal in years.",
        "Fast service, big smiles, delicious dumplings.",
        "The new menu is a real pleasure.",
    ),
}
COMPLAINT = {
    "train": (
        "We waited fifty minutes and then the food was cold.",
        "The waiter rolled his eyes at my question.",
        "My glass had lipstick on it when it arrived.",
        "They charged us twice and would not look at the receipt.",
        "The music was so loud that we had to shout.",
        "Stale bread, watery stew, never again.",
        "Our booking was lost and no one said sorry.",
        "The toilet was filthy and out of paper.",
        "Twelve euros for three small potatoes is a joke.",
        "I asked for no nuts and found two in the salad.",
        "The chairs are broken and one of them tore my coat.",
        "Nobody answered the phone for three days.",
    ),
    "test": (
        "The fish smelled bad and was raw in the middle.",
        "Rude service, and the manager laughed about it.",
        "A hair in my pasta, and they wanted full price for it.",
        "Our drinks came after the last plate was cleared.",
        "Dirty tablecloth, sticky cutlery, dead flies on the sill.",
        "I was sick all night because of the mussels.",
    ),
}
