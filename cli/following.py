"""A job on the command line, until it is done."""

import time
from collections.abc import Callable
from typing import Any

import typer

POLL_S = 1.0


def followed(call: Callable[..., Any], job: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Return a job when it has ended, done or failed, showing how far it is meanwhile. Ctrl-C leaves it alone."""
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    with Console(stderr=True, quiet=quiet).status(f"job {job['id']}, due at {job['due']}") as status:
        try:
            while job["state"] not in ("done", "failed"):
                time.sleep(POLL_S)
                job = call("GET", f"/jobs/{job['id']}")
                if job["progress"]:
                    status.update(f"job {job['id']}: {job['progress']['done']} of {job['progress']['parts']} parts")
        except KeyboardInterrupt:
            typer.echo(f"the job goes on; GET /jobs/{job['id']}/result has its result", err=True)
            raise typer.Exit(0) from None
    return job
