"""The house itself: names that nobody shadows, documents whose links lead somewhere."""

import re
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.services import ROOT

ROOMS = ("api", "benchmarks", "cli", "exchanges", "models", "notifier", "simulator", "tests", "workers")
DOCUMENTS = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs/adr/template.md"})


@pytest.mark.parametrize("room", ROOMS)
def test_no_dependency_ships_a_package_of_our_names(room: str) -> None:
    """A distribution with a top-level `models` would shadow ours in console scripts."""
    assert packages_distributions().get(room, []) in ([], ["crossfill"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_the_documents_lead_somewhere(document: Path) -> None:
    """Every relative link of README and docs/ names a file or folder that is there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
