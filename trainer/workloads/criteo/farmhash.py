"""FarmHash's fingerprint64 of many short strings at once (Pike, Alakuijala; farmhashna).

Strings up to 32 bytes are hashed by four formulas, one for each range of lengths; all arithmetic is modulo
2⁶⁴, which numpy's uint64 keeps to. AlgoPerf hashes Criteo's categories with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
"""Eight bytes each, the first one lowest."""

LONGEST = 32
K0 = 0xC3A5C85C97CB3127
K1 = 0xB492B66FBE98F273
K2 = 0x9AE16A3B2F90404F
MASK = 2**64 - 1


def fingerprint64(texts: Sequence[bytes]) -> Words:
    """Return the fingerprint of each text.

    Raises:
        ValueError: one is longer than 32 bytes.
    """
    fingerprints = np.empty(len(texts), np.uint64)
    places: dict[int, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        places[len(text)].append(place)
    for length, text_places in places.items():
        if length > LONGEST:
            raise ValueError(f"{length} bytes; fingerprint64 is for {LONGEST} at most here")
        joined = b"".join(texts[place] for place in text_places)
        letters = np.frombuffer(joined, np.uint8).reshape(len(text_places), length)
        fingerprints[text_places] = _of_length(letters, length)
    return fingerprints


def of_8_to_16(first: Words, last: Words, length: int) -> Words:
    """Return fingerprints of strings of one length from 8 to 16, by their first and last eight bytes."""
    multiplier = _word(K2 + 2 * length)
    a = first + _word(K2)
    c = _rotate(last, 37) * multiplier + a
    d = (_rotate(a, 25) + last) * multiplier
    return _mix(c, d, multiplier)


def _of_length(letters: NDArray[np.uint8], length: int) -> Words:
    """Return fingerprints of strings of one length, as rows of bytes [N, length]."""
    if length > 16:
        return _of_17_to_32(letters, length)
    if length >= 8:
        return of_8_to_16(_fetch(letters, 0), _fetch(letters, length - 8), length)
    if length >= 4:
        return _of_4_to_7(letters, length)
    if length > 0:
        return _of_1_to_3(letters, length)
    return np.full(len(letters), K2, np.uint64)


def _of_1_to_3(letters: NDArray[np.uint8], length: int) -> Words:
    first, middle, last = (letters[:, at].astype(np.uint64) for at in (0, length >> 1, length - 1))
    y = first + (middle << _word(8))
    z = _word(length) + (last << _word(2))
    return _shift_mix(y * _word(K2) ^ z * _word(K0)) * _word(K2)


def _of_4_to_7(letters: NDArray[np.uint8], length: int) -> Words:
    first, last = _fetch(letters, 0, 4), _fetch(letters, length - 4, 4)
    return _mix(_word(length) + (first << _word(3)), last, _word(K2 + 2 * length))


def _of_17_to_32(letters: NDArray[np.uint8], length: int) -> Words:
    multiplier = _word(K2 + 2 * length)
    a = _fetch(letters, 0) * _word(K1)
    b = _fetch(letters, 8)
    c = _fetch(letters, length - 8) * multiplier
    d = _fetch(letters, length - 16) * _word(K2)
    return _mix(_rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + _word(K2), 18) + c, multiplier)


def _mix(u: Words, v: Words, multiplier: np.uint64) -> Words:
    """Return both words hashed into one (HashLen16)."""
    a = _shift_mix((u ^ v) * multiplier)
    return _shift_mix((v ^ a) * multiplier) * multiplier


def _shift_mix(words: Words) -> Words:
    return words ^ (words >> _word(47))


def _rotate(words: Words, bits: int) -> Words:
    """Rotate to the right."""
    return (words >> _word(bits)) | (words << _word(64 - bits))


def _fetch(letters: NDArray[np.uint8], at: int, count: int = 8) -> Words:
    """Return `count` bytes of each row as numbers, the first byte lowest."""
    kind = np.dtype("<u8" if count == 8 else "<u4")
    return np.ascontiguousarray(letters[:, at : at + count]).view(kind)[:, 0].astype(np.uint64)


def _word(number: int) -> np.uint64:
    return np.uint64(number & MASK)
