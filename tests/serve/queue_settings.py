"""Settings with the common app alone, so that a program of the queue's tests starts in a fraction of a second."""

from pathlib import Path

from config.environment import load

SWITCHYARD = load(Path(__file__).resolve().parent)
DATABASES = SWITCHYARD.databases
SECRET_KEY = SWITCHYARD.secret_key
INSTALLED_APPS = ["apps.common"]
USE_TZ = True
