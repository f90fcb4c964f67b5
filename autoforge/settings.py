"""All settings, from the environment or `.env`; the defaults need no service."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.templatetags.static import static
from dmr.openapi import OpenAPIConfig
from dmr.settings import Settings as DmrSettings

from autoforge.environment import Environment
from autoforge.parsers import StrictJsonParser
from autoforge.secret_key import development_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment()
env.read_env(BASE_DIR / ".env")

# Core
DEBUG = env.bool("DEBUG", default=True)
VAR_DIR = Path(env.str("AUTOFORGE_VAR_DIR", default=str(BASE_DIR / "var")))
SECRET_KEY = env.str("SECRET_KEY", default="") or (development_secret_key(VAR_DIR) if DEBUG else "")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
ROOT_URLCONF = "autoforge.urls"
ASGI_APPLICATION = "autoforge.asgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "autoforge.apps.AutoForgeConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "dmr",
    "servestatic",
    "django_prometheus",
    "prompts.apps.PromptsConfig",
    "evaluations.apps.EvaluationsConfig",
    "realtime.apps.RealtimeConfig",
    "monitoring.apps.MonitoringConfig",
]

# Each must be a MiddlewareMixin without a __call__ of its own: both HTTP handlers count on it.
MIDDLEWARE = [
    "autoforge.http.metrics.RequestMetrics",
    "django.middleware.security.SecurityMiddleware",
    "autoforge.middleware.ContentSecurityPolicy",
    "autoforge.middleware.Sessions",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "autoforge.middleware.Authentication",
    "autoforge.middleware.Messages",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Database: a URL, or SQLite in var/. PostgreSQL goes through a pool (SQLAlchemy's QueuePool).
DATABASE_URL = env.str("DATABASE_URL", default="")
DB_POOL: dict[str, Any] = {
    "POOL_SIZE": env.int("AUTOFORGE_DB_POOL_SIZE", default=20),
    "MAX_OVERFLOW": env.int("AUTOFORGE_DB_POOL_MAX_OVERFLOW", default=10),
    "TIMEOUT": env.int("AUTOFORGE_DB_POOL_TIMEOUT", default=10),
    "RECYCLE": env.int("AUTOFORGE_DB_POOL_RECYCLE", default=3600),
    "PRE_PING": env.bool("AUTOFORGE_DB_POOL_PRE_PING", default=True),
}
# A connection used more recently than this is lent out after a look at its socket, without a ping.
DB_POOL_PING_IDLE_S = env.float("AUTOFORGE_DB_POOL_PING_IDLE", default=5.0)
# PostgreSQL ends the transaction of a process that fell silent in it for so long; 0: the server decides.
DB_IDLE_TRANSACTION_MS = round(env.float("AUTOFORGE_DB_IDLE_TRANSACTION", default=30.0) * 1000)
# How many processes share the server's connections: a check compares pools and max_connections.
WEB_PROCESSES = env.int("AUTOFORGE_WEB_PROCESSES", default=2)
WORKER_PROCESSES = env.int("AUTOFORGE_WORKER_PROCESSES", default=1)


def _sqlite() -> dict[str, Any]:
    VAR_DIR.mkdir(parents=True, exist_ok=True)
    return {
        "ENGINE": "django_prometheus.db.backends.sqlite3",
        "NAME": str(VAR_DIR / "autoforge.sqlite3"),
        # A file: SQLite's shared memory database answers other threads with "table is locked" at once.
        "TEST": {"NAME": str(VAR_DIR / f"test-{os.getpid()}.sqlite3")},
        "OPTIONS": {
            "timeout": 20,
            # A transaction that starts by reading and then writes would fail with "database is
            # locked" instead of waiting; IMMEDIATE takes the write lock at its start.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def _database() -> dict[str, Any]:
    if not DATABASE_URL:
        return _sqlite()
    parsed: dict[str, Any] = env.db_url_config(DATABASE_URL)
    if "postgresql" in parsed["ENGINE"]:
        parsed |= {"ENGINE": "autoforge.db", "CONN_MAX_AGE": 0, "POOL_OPTIONS": DB_POOL}
        if DB_IDLE_TRANSACTION_MS:
            # No transaction here waits for anything: who is that slow is stuck, and must not hold up others.
            given = {"options": f"-c idle_in_transaction_session_timeout={DB_IDLE_TRANSACTION_MS}"}
            parsed["OPTIONS"] = given | parsed.get("OPTIONS", {})
    return parsed


DATABASES = {"default": _database()}

# Redis: one URL for caches, channel layer and broker; without it everything lives in this process.
REDIS_URL = env.str("REDIS_URL", default="")
REDIS_MAX_CONNECTIONS = env.int("AUTOFORGE_REDIS_MAX_CONNECTIONS", default=50)
REDIS_RETRY_ON_TIMEOUT = env.bool("AUTOFORGE_REDIS_RETRY_ON_TIMEOUT", default=True)
REDIS_SOCKET_KEEPALIVE = env.bool("AUTOFORGE_REDIS_SOCKET_KEEPALIVE", default=True)
REDIS_HEALTH_CHECK_INTERVAL_S = env.int("AUTOFORGE_REDIS_HEALTH_CHECK_INTERVAL", default=30)
REDIS_TIMEOUT_S = env.float("AUTOFORGE_REDIS_TIMEOUT", default=2.0)

# Caches: one per kind of data, each with its time to live in seconds. A cache slower than its timeout
# is worth nothing: the database answers in milliseconds.
CACHE_TIMEOUT_S = env.float("AUTOFORGE_CACHE_TIMEOUT", default=0.5)
CACHE_TTL_S = {
    "llm_responses": env.int("AUTOFORGE_CACHE_TTL_LLM_RESPONSES", default=86_400),
    "user_sessions": env.int("AUTOFORGE_CACHE_TTL_USER_SESSIONS", default=3_600),
    "prompt_metadata": env.int("AUTOFORGE_CACHE_TTL_PROMPT_METADATA", default=7_200),
    "evaluation_results": env.int("AUTOFORGE_CACHE_TTL_EVALUATION_RESULTS", default=43_200),
}


def _redis_cache(name: str, ttl_s: int) -> dict[str, Any]:
    return {
        "BACKEND": "autoforge.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"af:{name}",
        "TIMEOUT": ttl_s,
        "OPTIONS": {
            "SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer",
            "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
            "SOCKET_CONNECT_TIMEOUT": CACHE_TIMEOUT_S,
            "SOCKET_TIMEOUT": CACHE_TIMEOUT_S,
            # All caches share one pool; while Redis is away its commands fail at once.
            "CONNECTION_POOL_CLASS": "autoforge.redis.GuardedPool",
            "CONNECTION_POOL_KWARGS": {
                "max_connections": REDIS_MAX_CONNECTIONS,
                "retry_on_timeout": REDIS_RETRY_ON_TIMEOUT,
                "socket_keepalive": REDIS_SOCKET_KEEPALIVE,
                "health_check_interval": REDIS_HEALTH_CHECK_INTERVAL_S,
            },
            "IGNORE_EXCEPTIONS": True,
        },
    }


def _local_cache(name: str, ttl_s: int) -> dict[str, Any]:
    return {
        "BACKEND": "autoforge.local_cache.LocalCache",
        "LOCATION": name,
        "TIMEOUT": ttl_s,
        "OPTIONS": {
            "MAX_ENTRIES": 10_000,
            "MAX_BYTES": LOCAL_CACHE_MAX_BYTES,
            # What is in `default` (tickets of WebSockets) is nowhere else.
            "IS_TRIMMED": name != "default",
        },
    }


LOCAL_CACHE_MAX_BYTES = env.int("AUTOFORGE_LOCAL_CACHE_MAX_MB", default=16) * 1024 * 1024
_cache = _redis_cache if REDIS_URL else _local_cache
CACHES = {"default": _cache("default", 300)} | {
    name: _cache(name, ttl_s) for name, ttl_s in CACHE_TTL_S.items() if name != "llm_responses"
}
# Copies of hot answers inside a process live this long: all a reader may be behind.
PROCESS_CACHE_S = env.float("AUTOFORGE_PROCESS_CACHE", default=0.75)
PROCESS_CACHE_MAX_ENTRIES = env.int("AUTOFORGE_PROCESS_CACHE_MAX_ENTRIES", default=5_000)
PROCESS_CACHE_MAX_BYTES = env.int("AUTOFORGE_PROCESS_CACHE_MAX_MB", default=16) * 1024 * 1024
LLM_CACHE_MAX_ENTRIES = env.int("AUTOFORGE_LLM_CACHE_MAX_ENTRIES", default=1_000)
LLM_CACHE_MAX_BYTES = env.int("AUTOFORGE_LLM_CACHE_MAX_MB", default=64) * 1024 * 1024

# Channel layer. redis-py 8 sets a socket timeout of 5 s that breaks idle receives: none here.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            "hosts": [{"address": REDIS_URL, "socket_timeout": None, "max_connections": 1_000}],
            "prefix": "af:layer",
            "capacity": 10_000,
        },
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 100_000}}
}

# Runs
EXECUTOR = env.str("AUTOFORGE_EXECUTOR", default="inprocess")  # or "celery"
RUN_SHARD_CELLS = env.int("AUTOFORGE_RUN_SHARD_CELLS", default=250)
RUN_BATCH_CELLS = env.int("AUTOFORGE_RUN_BATCH_CELLS", default=50)
RUN_BATCH_MS = env.int("AUTOFORGE_RUN_BATCH_MS", default=100)
RUN_HEARTBEAT_S = env.float("AUTOFORGE_RUN_HEARTBEAT", default=1.0)
RUN_SHARD_SILENT_S = env.float("AUTOFORGE_RUN_SHARD_SILENT", default=10.0)
# A run that is executed elsewhere ends when nothing is heard of it for so long.
RUN_EXTERNAL_SILENT_S = env.float("AUTOFORGE_RUN_EXTERNAL_SILENT", default=300.0)
RUN_LOOK_S = env.float("AUTOFORGE_RUN_LOOK", default=1.0)
RUN_STOP_S = env.float("AUTOFORGE_RUN_STOP", default=8.0)
RUN_MAX_CELLS = env.int("AUTOFORGE_RUN_MAX_CELLS", default=1_000_000)
RUN_MAX_CONCURRENCY = env.int("AUTOFORGE_RUN_MAX_CONCURRENCY", default=1_000)

CELERY_BROKER_URL = REDIS_URL or "memory://"
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A killed worker's tasks come back fast only with these (measured: 75 s without, seconds with).
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": env.int("AUTOFORGE_TASK_VISIBILITY", default=60),
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # Whoever sends a task does not wait for a broker that is away; workers keep trying to connect.
    "socket_timeout": REDIS_TIMEOUT_S,
    "socket_connect_timeout": REDIS_TIMEOUT_S,
    "socket_keepalive": REDIS_SOCKET_KEEPALIVE,
    "health_check_interval": 5,
    "max_retries": 0,
}

# Housekeeping: beat sends the task, or a thread of the web process does it where there is no Celery.
HOUSEKEEPING_S = env.float("AUTOFORGE_HOUSEKEEPING", default=3_600.0)
CELERY_BEAT_SCHEDULE: dict[str, Any] = (
    {"housekeeping": {"task": "monitoring.keep_house", "schedule": HOUSEKEEPING_S}} if HOUSEKEEPING_S else {}
)
KEEP_DAYS = {
    "runs": timedelta(days=env.float("AUTOFORGE_KEEP_RUNS_DAYS", default=0)),
    "workers": timedelta(days=env.float("AUTOFORGE_KEEP_WORKERS_DAYS", default=1)),
    "admin_log": timedelta(days=env.float("AUTOFORGE_KEEP_ADMIN_LOG_DAYS", default=365)),
    "dead_keys": timedelta(days=env.float("AUTOFORGE_KEEP_DEAD_KEYS_DAYS", default=365)),
}

# Each thread of a worker drains one run.
WORKER_THREADS = env.int("AUTOFORGE_WORKER_THREADS", default=8)

# Calling models
MODEL_TIMEOUT_S = env.float("AUTOFORGE_MODEL_TIMEOUT", default=120.0)
MODEL_MAX_ATTEMPTS = env.int("AUTOFORGE_MODEL_MAX_ATTEMPTS", default=5)
MODEL_MAX_OUTPUT_BYTES = env.int("AUTOFORGE_MODEL_MAX_OUTPUT_MB", default=8) * 1024 * 1024
ALLOW_PRIVATE_ENDPOINTS = env.bool("AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS", default=False)
# Encrypts provider secrets at rest; rotate by putting the new key first.
FIELD_ENCRYPTION_KEYS = env.list("AUTOFORGE_ENCRYPTION_KEYS", default=[])

# A libSQL/Turso database that `manage.py sync_turso` copies projects to
TURSO_URL = env.str("AUTOFORGE_TURSO_URL", default="")
TURSO_TOKEN = env.str("AUTOFORGE_TURSO_TOKEN", default="")
TURSO_TIMEOUT_S = env.float("AUTOFORGE_TURSO_TIMEOUT", default=60.0)

# HTTP limits, in bytes and seconds
MAX_BODY_BYTES = env.int("AUTOFORGE_MAX_BODY_MB", default=2) * 1024 * 1024
MAX_IMPORT_BYTES = env.int("AUTOFORGE_MAX_IMPORT_MB", default=64) * 1024 * 1024
MAX_TRACES_BYTES = env.int("AUTOFORGE_MAX_TRACES_MB", default=16) * 1024 * 1024  # packed and unpacked
MAX_INGESTION_BYTES = env.int("AUTOFORGE_MAX_INGESTION_MB", default=4) * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
HTTP_THREADS = env.int("AUTOFORGE_HTTP_THREADS", default=4)
HTTP_QUEUE = env.int("AUTOFORGE_HTTP_QUEUE", default=1_000)  # requests waiting for a thread
HTTP_STREAMS = env.int("AUTOFORGE_HTTP_STREAMS", default=32)  # responses of sync views sent in pieces
HTTP_ASYNC_REQUESTS = env.int("AUTOFORGE_HTTP_ASYNC_REQUESTS", default=2_000)  # waiting for models
HTTP_BODIES = env.int("AUTOFORGE_HTTP_BODIES", default=256)  # bodies arriving in pieces at once
HTTP_SPOOL_BYTES = env.int("AUTOFORGE_HTTP_SPOOL_KB", default=256) * 1024  # larger bodies go to disk
HTTP_BODY_IDLE_S = env.float("AUTOFORGE_HTTP_BODY_IDLE", default=30.0)  # silence inside a body
# On the whole a body may not come slower, beyond one such silence.
HTTP_BODY_BYTES_PER_S = env.int("AUTOFORGE_HTTP_BODY_KB_PER_S", default=8) * 1024
HTTP_SHUTDOWN_S = env.float("AUTOFORGE_HTTP_SHUTDOWN", default=10.0)  # for requests in flight


def _numbers(variable: str) -> dict[str, int]:
    """`a=1,b=2`"""
    return dict(env.get_value(variable, cast={"value": int}, default={}))


# Requests a minute and caller. A key's own limit goes before its role's, that before the default; the
# limit of a route, by the route's name, holds beside them. 0: no limit.
RATE_LIMIT_PER_MIN = env.int("AUTOFORGE_RATE_LIMIT", default=6_000)
RATE_LIMITS_BY_ROLE = _numbers("AUTOFORGE_RATE_LIMITS_BY_ROLE")
RATE_LIMITS_BY_ROUTE = _numbers("AUTOFORGE_RATE_LIMITS_BY_ROUTE")
FAILED_LOGINS_PER_MIN = env.int("AUTOFORGE_FAILED_LOGINS", default=30)  # by address
IDEMPOTENCY_TTL = timedelta(hours=24)
API_KEY_CACHE_S = env.float("AUTOFORGE_API_KEY_CACHE", default=1.0)

# WebSockets
WS_MAX_CONNECTIONS = env.int("AUTOFORGE_WS_MAX_CONNECTIONS", default=15_000)
WS_MAX_FRAME_BYTES = env.int("AUTOFORGE_WS_MAX_FRAME_KB", default=256) * 1024
WS_OUTBOX_FRAMES = env.int("AUTOFORGE_WS_OUTBOX", default=256)
WS_OUTBOX_BYTES = env.int("AUTOFORGE_WS_OUTBOX_KB", default=8_192) * 1024
# One system call for many sockets, where the system has it (Linux).
WS_IO_URING = env.bool("AUTOFORGE_WS_IO_URING", default=True)
WS_TICKET_TTL_S = 30

# Monitoring
METRICS_TOKEN = env.str("AUTOFORGE_METRICS_TOKEN", default="")
# Of each process: above the soft share it trims its caches, above the limit it makes room for a fresh one.
MEMORY_LIMIT_BYTES = env.int("AUTOFORGE_MEMORY_LIMIT_MB", default=512) * 1024 * 1024
MEMORY_SOFT_SHARE = 0.8
PROMETHEUS_METRIC_NAMESPACE = "autoforge"
PROMETHEUS_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10)

# REST: strict bodies, no second validation of what our own types produced.
DMR_SETTINGS = {
    DmrSettings.parsers: [StrictJsonParser()],
    DmrSettings.validate_responses: False,
    DmrSettings.openapi_config: OpenAPIConfig(title="AutoForge", version="1"),
}

# Sessions, passwords, browser security
SESSION_ENGINE = "autoforge.sessions"
SESSION_CACHE_ALIAS = "user_sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG and env.bool("AUTOFORGE_HTTPS", default=True)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE
# Load balancers and Prometheus ask each process directly, without TLS.
SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if SESSION_COOKIE_SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SESSION_COOKIE_SECURE
BEHIND_PROXY = env.bool("AUTOFORGE_BEHIND_PROXY", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
X_FRAME_OPTIONS = "DENY"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        # The admin theme is built on Alpine.js, which evaluates its expressions.
        "script-src": ["'self'", "'unsafe-eval'"],
        # The page that shows the API searches it in a worker made of text.
        "worker-src": ["'self'", "blob:"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'", "ws:", "wss:"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
        "base-uri": ["'self'"],
    },
}

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False

UNFOLD = {
    "SITE_TITLE": "AutoForge",
    "SITE_HEADER": "AutoForge",
    "SITE_SUBHEADER": "Prompts and their evaluation",
    "SITE_SYMBOL": "network_intelligence",
    "DASHBOARD_CALLBACK": "monitoring.dashboards.dashboard",
    "SIDEBAR": {"navigation": "autoforge.navigation.sidebar", "show_all_applications": True},
    "STYLES": [lambda request: static("evaluations/desk.css")],
    "SCRIPTS": [lambda request: static("evaluations/keys.js")],
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("evaluations/icon.svg")}
    ],
}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("AUTOFORGE_LOG_LEVEL", default="INFO")},
    "loggers": {"httpx": {"level": "WARNING"}, "asyncio": {"level": "WARNING"}},
}
