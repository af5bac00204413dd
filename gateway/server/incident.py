"""Inside stays inside: an unknown failure is logged in full and shown as a number."""

from __future__ import annotations

import logging
import secrets

from gateway.model.errors import GatewayError, Reason

log = logging.getLogger(__name__)


def known(error: Exception) -> GatewayError:
    """`error` itself if it is made for callers, else an INTERNAL_ERROR that names the incident in the log."""
    if isinstance(error, GatewayError):
        return error
    incident = secrets.token_hex(8)
    log.error("incident %s", incident, exc_info=error)
    return GatewayError(Reason.INTERNAL_ERROR, f"Internal error; incident {incident}", metadata={"incident": incident})
