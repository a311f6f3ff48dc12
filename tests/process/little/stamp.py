"""Stamp the ops session."""

import os
import sys

import psycopg
from point import reach

try:
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(
            "insert into ops.session_log (app_name, app_version) values (%s, %s)",
            [os.environ["APP_NAME"], os.environ["APP_VERSION"]],
        )
except psycopg.OperationalError as no:
    sys.exit(f"no stamp: {no}")
reach("after the stamp")
