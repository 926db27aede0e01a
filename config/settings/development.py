"""Settings for `make run` on one machine: plain HTTP on loopback, and upstream servers on loopback may be reached."""

from dataclasses import replace

from config.settings.base import *

SWITCHYARD = ENV if ENV.allowed_networks else replace(ENV, allowed_networks=["loopback"])
