# SPDX-License-Identifier: Apache-2.0
"""Log lines on stderr: one format, one place; results go to stdout and are not logs.

Called once by every process edge (`fsb`, the stages, the server). `FSB_LOG_LEVEL` sets the level
(default INFO) and `FSB_LOG_FORMAT=json` gives one JSON object a line. Never configures stdout.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Final

from pyfsb.errors import ConfigError

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_QUIET: Final = ("botocore", "boto3", "urllib3", "s3transfer", "matplotlib", "filelock", "httpx")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, logger, message, traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging() -> None:
    """Send log lines to stderr in the format that the environment asks for.

    Raises:
        ConfigError: `FSB_LOG_LEVEL` or `FSB_LOG_FORMAT` is not a known value.
    """
    level = os.environ.get("FSB_LOG_LEVEL", "INFO").upper()
    if level not in _LEVELS:
        raise ConfigError(f"FSB_LOG_LEVEL={level!r}; expected one of {', '.join(_LEVELS)}")
    layout = os.environ.get("FSB_LOG_FORMAT", "text")
    if layout not in ("text", "json"):
        raise ConfigError(f"FSB_LOG_FORMAT={layout!r}; expected text or json")
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
    handler.setFormatter(
        _JsonFormatter() if layout == "json" else logging.Formatter(text, datefmt="%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("pyfsb", "serving", "pipelines", "operators"):
        logging.getLogger(name).setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
