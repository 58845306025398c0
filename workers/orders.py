"""The tasks of orders."""

from models.bus.names import Task
from workers import owner
from workers.celery import app


@app.task(name=Task.ORDER_PLACE.value)
def place(*, shard: int) -> None:
    """Wake the loop that owns the shard; it finds the rows itself. A lost or second wake-up does no harm."""
    if owner.owned is not None:
        owner.owned.wake(shard)
