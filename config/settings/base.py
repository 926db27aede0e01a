"""Settings common to every way of running; see `config/environment.py` for the variables."""

from pathlib import Path
from typing import Any

import django_stubs_ext
from csp.constants import NONCE, NONE, SELF

from config.console.unfold import UNFOLD  # noqa: F401 - unfold reads it
from config.environment import load

django_stubs_ext.monkeypatch()  # lets classes of Django name their parameter, as in ModelForm[Server]

BASE_DIR = Path(__file__).resolve().parent.parent.parent
ENV = load(BASE_DIR)

SECRET_KEY = ENV.secret_key
DEBUG = False
ALLOWED_HOSTS = ENV.allowed_hosts
CSRF_TRUSTED_ORIGINS = ENV.csrf_trusted_origins

INSTALLED_APPS = [
    "config.console.apps.UnfoldConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "config.console.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "config",
    "apps.common",
    "apps.audit",
    "apps.accounts",
    "apps.plugins",
    "apps.workbench",
    "apps.servers",
    "apps.tools",
    "apps.gateway",
]

MIDDLEWARE = [
    "apps.common.api.middleware.RequestIdMiddleware",
    "apps.common.api.middleware.SecurityHeadersMiddleware",
    "apps.common.api.middleware.ApiProblemMiddleware",
    "config.middleware.ForwardedSchemeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "apps.accounts.middleware.ScopeMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
CSRF_FAILURE_VIEW = "config.console.errors.csrf_refused"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = ENV.databases
DATABASE_ROUTERS = ["apps.audit.router.AuditRouter"]
AUDIT_DATABASE = "audit" if "audit" in DATABASES else "default"
"""The log has a file of its own on SQLite; on PostgreSQL it stands beside the rest."""
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "apps.accounts.password_audit.RecordPasswordChange"},
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.ScryptPasswordHasher", "django.contrib.auth.hashers.PBKDF2PasswordHasher"]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static" / "switchyard"]
WHITENOISE_USE_FINDERS = True
"""Files are served from where they are installed: nothing has to be collected before a start."""
WHITENOISE_MAX_AGE = 300

SESSION_COOKIE_NAME = "switchyard-session"
SESSION_COOKIE_AGE = 8 * 3600
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = "switchyard-csrf"
CSRF_COOKIE_SAMESITE = "Lax"

SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
"""For every page but the console's, which has a policy of its own (`config.console.csp`)."""
if ENV.https:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

CACHES: dict[str, dict[str, Any]] = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if ENV.redis_url:
    CACHES["default"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": ENV.redis_url,
        "KEY_PREFIX": "switchyard",
        "OPTIONS": {"socket_timeout": ENV.redis_timeout, "socket_connect_timeout": ENV.redis_timeout},
    }
    # no time-out for reads: the layer waits for messages by a blocking read that is longer than the client's default
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [{"address": ENV.redis_url, "socket_timeout": None}], "prefix": "switchyard"},
    }

globals().update(ENV.email)

DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.common.api.authentication.ApiKeyAuthentication",
        "apps.common.api.authentication.ConsoleAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["apps.common.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "apps.common.api.pagination.CursorPagination",
    "DEFAULT_FILTER_BACKENDS": ["apps.common.api.parameters.ApiFilterBackend", "apps.common.api.parameters.ApiOrdering"],
    "DEFAULT_SCHEMA_CLASS": "apps.common.api.schema.SwitchyardSchema",
    "EXCEPTION_HANDLER": "apps.common.api.problems.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Switchyard",
    "DESCRIPTION": "The control plane: servers, toolsets, grants, keys and the audit log.",
    "VERSION": "0.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "CredentialKind": ("header", "env"),
        "EndpointState": "apps.servers.models.Endpoint.State",
        "DefinitionState": "apps.tools.models.Definition.State",
        "EntryKind": "apps.tools.models.ToolsetEntry.Kind",
        "GrantKind": "apps.tools.models.Grant.Kind",
        "ListedKind": ("tool", "resource", "template", "prompt"),
        "MessageKind": ("request", "notification", "result", "error"),
        "RecordingKind": "apps.gateway.models.Recording.Kind",
    },
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "apps.common.api.schema.add_problems"],
}

SWITCHYARD = ENV
SWITCHYARD_VERSION = "0.1.0"

LOGGING_CONFIG = "apps.common.telemetry.configure"
LOGGING = {"level": "INFO"}

CELERY_BROKER_URL = ENV.redis_url or "switchyard-db://localhost"
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600, "health_check_interval": 30} if ENV.redis_url else {}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "switchyard"
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_RESULT_EXPIRES = None
CELERY_TASK_PUBLISH_RETRY = bool(ENV.redis_url)
"""In the database the enqueuer's transaction has failed with the message; there is nothing to try again."""
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SYNC_EVERY = 1
"""When an entry last ran is written at once, so that the next clock to tick does not run it again."""
CELERY_BEAT_SCHEDULE = {
    "Roll up the audit log": {"task": "audit.roll_up", "schedule": 10.0, "options": {"expire_seconds": 30}},
    "Let payloads go that have reached their age": {
        "task": "audit.retain",
        "schedule": 60.0,
        "options": {"expire_seconds": 120},
    },
    "Close calls that a dead process left open": {"task": "audit.sweep", "schedule": 60.0, "options": {"expire_seconds": 120}},
    "Take up discoveries of dead processes": {
        "task": "tools.take_up_discoveries",
        "schedule": 15.0,
        "options": {"expire_seconds": 30},
    },
    "Discover again what failed or was not asked for long": {
        "task": "tools.discover_due",
        "schedule": 15.0,
        "options": {"expire_seconds": 30},
    },
    "Forget processes of dead workers": {
        "task": "servers.remove_stale_processes",
        "schedule": 60.0,
        "options": {"expire_seconds": 120},
    },
    "Refresh tokens of connections": {
        "task": "servers.refresh_connections",
        "schedule": 5.0,
        "options": {"expire_seconds": 15},
    },
    "Forget authorizations that nobody came back to": {
        "task": "servers.forget_authorizations",
        "schedule": 3_600.0,
        "options": {"expire_seconds": 3_600},
    },
    "Prune the outbox": {"task": "common.prune_outbox", "schedule": 3_600.0, "options": {"expire_seconds": 3_600}},
    "Delete recordings of messages after a day": {
        "task": "gateway.prune_recordings",
        "schedule": 600.0,
        "options": {"expire_seconds": 600},
    },
    "Forget clients that have not been seen for long": {
        "task": "gateway.forget_clients",
        "schedule": 86_400.0,
        "options": {"expire_seconds": 86_400},
    },
    "Prune idempotency keys": {
        "task": "common.prune_idempotency_keys",
        "schedule": 3_600.0,
        "options": {"expire_seconds": 3_600},
    },
}
