"""Keyed random streams: a draw depends on the words of its key, never on earlier draws.

Every random number of a run comes from `stream(seed, "purpose", ...)`: shuffles are keyed by (seed, epoch), augmentation
by (seed, epoch, image), initialization by (seed, part). So they are the same for every batch size, accumulation, number of
ranks and restarts, and a resumed run needs no saved generator state. The generator is numpy's counter-based Philox4x64-10
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

numpy guarantees Philox's raw bits, but not the permutations or normals that a Generator makes of them: a release may change
these (NEP 19). So numpy's version is part of the execution fingerprint, and resuming under another version is reported as
inexact. It is not part of a run's identity: tests/test_rng.py holds the methods used here to the numbers that they gave when
`TRAINING_VERSION` was set, and a release that changes them requires a new version.
"""

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
