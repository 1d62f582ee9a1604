"""FarmHash's fingerprint64 in numpy equals the reference implementation's, at every length it takes."""

import pytest
from alphagrid.trainer.workloads.criteo.farmhash import fingerprint64
from hypothesis import example, given, settings
from hypothesis import strategies as st

farmhash = pytest.importorskip("farmhash", reason="pyfarmhash is not installed")

TEXT = st.text(st.characters(max_codepoint=127), max_size=32)


@settings(deadline=None)
@given(st.lists(TEXT, max_size=20))
@example([length * "x" for length in range(33)])
def test_fingerprints_are_the_reference_s(texts: list[str]) -> None:
    expected = [farmhash.fingerprint64(text) for text in texts]
    assert fingerprint64([text.encode() for text in texts]).tolist() == expected


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="33 bytes"):
        fingerprint64([b"short", 33 * b"x"])
