"""`python -m notifier`: the server, on the host and port of the settings."""

import gc

import structlog
import uvicorn

from models.logs import configure_logs
from models.metrics import new_registry
from models.settings import Settings
from models.store.database import Database
from notifier.server import Notifier
from notifier.sockets import PING_S, Pinged


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_level)
    structlog.get_logger().info("pushing events", market=settings.market.value, port=settings.notifier_port)
    app = Notifier(settings, Database.open(settings.database), new_registry("notifier", settings)).app()
    gc.freeze()  # what the imports made stays: to look it through again and again takes 50 ms at a time
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.notifier_port,
        loop="uvloop",
        access_log=False,
        log_level="warning",
        ws_per_message_deflate=False,
        ws_max_size=65_536,
        ws=Pinged,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
