"""What a process says on its standard error, and what it leaves out."""

import logging

import structlog


def configure_logs(level: str) -> None:
    """Say what is of this level or above; what libraries say, of WARNING or above at least."""
    least = logging.getLevelNamesMapping()[level]
    logging.basicConfig(level=max(least, logging.WARNING), format="%(levelname)s %(name)s %(message)s")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(least))
