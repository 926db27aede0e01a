"""Settings for an installation that others reach; by HTTPS where SWITCHYARD_PUBLIC_URL says so."""

from config.environment import ConfigurationError
from config.settings.base import *

if ENV.https:
    if not ENV.trusted_proxies:
        raise ConfigurationError(
            "SWITCHYARD_TRUSTED_PROXIES: name the proxy that ends HTTPS for SWITCHYARD_PUBLIC_URL (an address, a network or loopback)"
        )
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^health/"]
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    SESSION_COOKIE_NAME = "__Host-switchyard-session"
    CSRF_COOKIE_SECURE = True
    CSRF_COOKIE_NAME = "__Host-switchyard-csrf"
