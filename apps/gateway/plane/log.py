"""What the data plane says of itself: defects, with their stack, never with what a caller sent."""

import logging
from typing import Any

logger = logging.getLogger("switchyard.plane")


def log_defect(where: str, error: BaseException, **facts: Any) -> None:
    """Log an exception that should not have been possible."""
    logger.error("defect in %s", where, exc_info=error, extra={"facts": facts})
