"""Streams are Philox's, and what numpy makes of them is what it made when the version of the training semantics was set."""

from __future__ import annotations

import numpy as np
import pytest

from study.rng import key, stream


def test_the_bits_are_philoxs():
    """Known answers of the authors' own code (Random123, kat_vectors): philox4x64 of ten rounds, counter and key zero."""
    bits = np.random.Philox(counter=2**256 - 1, key=0).random_raw(4)  # numpy counts up first
    assert [f"{word:016x}" for word in bits] == [
        "16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b"
    ]  # fmt: skip


def test_what_is_drawn_is_what_was_drawn():
    """Numbers written down with numpy 2.4 and TRAINING_VERSION 1, of every method that a run's numbers come from.

    numpy may change them in any release (NEP 19). Where this fails the same configuration trains to other weights, and
    splits its data otherwise: TRAINING_VERSION has to be raised.
    """
    assert stream(0, "canary").permutation(10).tolist() == [5, 6, 0, 7, 2, 4, 9, 3, 8, 1]
    assert stream(0, "canary").integers(0, 256, 6, dtype="uint8").tolist() == [60, 188, 136, 110, 95, 61]
    halves = [float.fromhex("0x1.47747abedd117p-1"), float.fromhex("0x1.378fe2f0c9a8ap-1")]
    assert stream(0, "canary").random(2).tolist() == halves
    assert stream(0, "canary").uniform(-1, 1, 2).tolist() == pytest.approx([2 * half - 1 for half in halves], rel=1e-14)
    singles = [float.fromhex("0x1.ba22f0p-2"), float.fromhex("0x1.47747ap-1")]
    assert stream(0, "canary").random(2, dtype=np.float32).tolist() == singles
    normals = [float.fromhex("0x1.fc95d5ae360f1p-4"), float.fromhex("0x1.ea8536704f23cp-1")]
    assert stream(0, "canary").standard_normal(2).tolist() == pytest.approx(normals, rel=1e-12)
    betas = [float.fromhex("0x1.152dd5c8e3b5fp-1"), float.fromhex("0x1.f6d4471d48c98p-1")]
    assert stream(0, "canary").beta(0.3, 0.3, 2).tolist() == pytest.approx(betas, rel=1e-12)


def test_keys_tell_words_apart():
    """The type of a word, and where one ends and the next begins, are part of the key."""
    words = [(1, "a"), ("1", "a"), ("a", 1), ("ab",), ("a", "b"), ("a", "", "b"), (), ("",)]
    assert len({key(*one) for one in words}) == len(words)
