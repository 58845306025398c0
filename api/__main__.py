"""`python -m api`: the server, on the host and port of the settings."""

import gc

import structlog
import uvicorn

from api.app import create_app
from api.crowding import crowded
from api.orders import PLACE
from models.logs import configure_logs
from models.settings import Settings

# Longer than clients and proxies keep an idle connection: who closes first must be the one who would write next, or
# its request meets a reset. uvicorn's own 5 s is about as often as a client looks.
KEEP_ALIVE_S = 75


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_level)
    structlog.get_logger().info("accepting orders", market=settings.market.value, port=settings.api_port)
    app = create_app(settings)
    gc.freeze()  # what the imports made stays: to look it through again and again takes 50 ms at a time
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.api_port,
        loop="uvloop",
        http=crowded(app, PLACE),
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
