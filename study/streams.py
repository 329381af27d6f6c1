"""Keyed random streams: what is drawn depends on the words of its key, never on what was drawn before.

Every random number of a run comes from `stream(seed, "purpose", ...)`: shuffles are keyed by (seed, epoch), augmentation
by (seed, epoch, image), initialisation by (seed, part). So batch size, accumulation, ranks, restarts and neighbouring
runs change none of them, and a resumed run needs no saved generator state. Counter-based Philox (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011) from numpy, whose streams are fixed across platforms.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def key(*words: int | str) -> int:
    """A 128-bit key of the words; (1, "a") and ("1", "a") differ, and so do ("a", "b") and ("ab",)."""
    digest = hashlib.sha256(json.dumps(words, ensure_ascii=True).encode()).digest()
    return int.from_bytes(digest[:16], "little")


def stream(*words: int | str) -> np.random.Generator:
    """A fresh generator for the words: same words, same numbers, on every machine."""
    return np.random.Generator(np.random.Philox(key=key(*words)))
