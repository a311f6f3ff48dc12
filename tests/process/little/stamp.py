"""Stamp the ops session."""

import os

from point import psql, reach

app, version = os.environ["APP_NAME"], os.environ["APP_VERSION"]
psql("insert into ops.session_log (app_name, app_version) values (:'app', :'version')", app=app, version=version)
reach("after the stamp")
