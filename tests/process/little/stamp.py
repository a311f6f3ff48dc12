"""Stamp the ops session."""

import os

import psycopg
from point import reach

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute(
        "insert into ops.session_log (app_name, app_version) values (%s, %s)",
        [os.environ["APP_NAME"], os.environ["APP_VERSION"]],
    )
reach("after the stamp")
