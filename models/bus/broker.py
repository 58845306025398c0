"""How every process that speaks to Celery's broker speaks to it."""

from typing import Any

SOCKET_TIMEOUT_S = 10


def celery_options(broker_url: str, *, socket_timeout_s: float = SOCKET_TIMEOUT_S) -> dict[str, Any]:
    """Return the settings that publishers and workers share.

    JSON only, no result backend (results are rows of the table `jobs`), and time limits on every
    connection: kombu's default is to wait for ever.
    """
    return {
        "broker_url": broker_url,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        "enable_utc": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": 60,
            "unacked_restore_throttle": 1,  # what a killed worker held is given back after 70 s; else it is 160
            "socket_timeout": socket_timeout_s,
            "socket_connect_timeout": min(socket_timeout_s, 3),
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    }
