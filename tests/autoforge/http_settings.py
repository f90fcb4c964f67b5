"""AutoForge's settings with the routes of the HTTP tests, and limits small enough to meet."""

import os

from autoforge.settings import *  # noqa: F403  all of them

ROOT_URLCONF = "tests.autoforge.http_urls"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
SECURE_SSL_REDIRECT = False
SECRET_KEY = "only-for-these-tests-" + "x" * 40
HTTP_THREADS = 2
HTTP_QUEUE = 2
HTTP_STREAMS = 2
HTTP_BODIES = 2
HTTP_SPOOL_BYTES = 64 * 1024
HTTP_BODY_IDLE_S = 1.0
HTTP_BODY_BYTES_PER_S = 16 * 1024
SENTINEL_DIR = os.environ.get("HTTP_TEST_DIR", "")
