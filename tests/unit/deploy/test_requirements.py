import re
from importlib.metadata import requires
from pathlib import Path

from cli.programs import flower_environment
from tests.services import ROOT


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+==\S+)", path.read_text(), re.MULTILINE))


def test_the_image_installs_what_was_tested() -> None:
    """Each version of the image is that of the lock, and neither file names where packages come from."""
    image = pins(ROOT / "deploy" / "requirements.txt")
    lock = pins(ROOT / "requirements.txt")
    assert len(image) > 40
    assert image < lock
    for path in (ROOT / "deploy" / "requirements.txt", ROOT / "requirements.txt"):
        assert "://" not in path.read_text()


def test_the_image_has_what_only_the_transport_asks_for() -> None:
    """Kombu's Redis transport imports packaging, which kombu does not require."""
    assert not any(line.startswith("packaging") for line in requires("kombu") or () if "extra" not in line)
    assert any(pin.startswith("packaging==") for pin in pins(ROOT / "deploy" / "requirements.txt"))


def test_flower_has_the_same_options_everywhere() -> None:
    """docker-compose.yml and `crossfill up` differ in the address only."""
    text = (ROOT / "docker-compose.yml").read_text()
    written = dict(re.findall(r"^      (FLOWER_[A-Z_]+): \"?([^\s\"]+)", text, re.MULTILINE))
    expected = flower_environment("TOKEN", 5555, "0.0.0.0")
    assert set(written) == set(expected)
    assert {**written, "FLOWER_BASIC_AUTH": ""} == {**expected, "FLOWER_BASIC_AUTH": ""}


def test_every_published_port_is_on_the_loopback_address() -> None:
    """Nothing is open to the network unless somebody opens it."""
    ports = re.findall(r"^    ports:\n((?:      - .*\n)+)", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    assert len(ports) == 3
    assert all(line.strip().startswith('- "127.0.0.1:') for block in ports for line in block.splitlines())
