"""Keyed random streams: what is drawn depends on the words of its key, never on what was drawn before.

Every random number of a run comes from `stream(seed, "purpose", ...)`: shuffles are keyed by (seed, epoch), augmentation
by (seed, epoch, image), initialization by (seed, part). So batch size, accumulation, ranks, restarts and neighbouring
runs change none of them, and a resumed run needs no saved generator state. Counter-based Philox4x64-10 (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011) from numpy.

numpy promises Philox's raw bits for good, but not what a Generator makes of them: a release may draw other permutations or
normals from the same bits (NEP 19). So numpy's version stands in the execution fingerprint, and a resume under another one
is told as inexact; it is not in a run's identity, since the methods used here are held to the numbers they gave when
`TRAINING_VERSION` was set (tests/test_rng.py): a release that changes them asks for another version.
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
