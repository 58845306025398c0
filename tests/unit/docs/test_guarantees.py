"""docs/guarantees.md: what it names is there."""

import re

from tests.services import ROOT


def test_every_claim_names_tests_that_exist() -> None:
    """By file or folder, and by function."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    claims = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(claims) > 10
    for claim in claims:
        named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", claim)
        assert named, claim
        for path, function in named:
            assert (ROOT / path).exists(), path
            assert not function or f"def {function}(" in (ROOT / path).read_text(), f"{path}::{function}"
