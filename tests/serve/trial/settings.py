"""Settings of an installation whose application is a small one of the tests: what is under test is what runs it."""

from config.settings.base import *  # noqa: F403

ASGI_APPLICATION = "tests.serve.trial.asgi.application"
INSTALLED_APPS = [*INSTALLED_APPS, "tests.serve.trial"]  # noqa: F405
