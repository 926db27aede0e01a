"""Django configuration of the console: unfold, with Switchyard's own admin site."""

import sys

from django.contrib.admin.apps import AdminConfig, SimpleAdminConfig
from unfold.apps import BasicAppConfig

STARTING = frozenset({"serve", "bootstrap", "run_process"})
"""Commands that should be up soon: `config.urls` collects the pages of the console when the first address is looked up."""


class UnfoldConfig(BasicAppConfig):
    """unfold without its automatic replacement of the admin site."""


class ConsoleConfig(AdminConfig):
    """The admin, with `SwitchyardAdminSite` as its site."""

    default_site = "config.console.site.SwitchyardAdminSite"

    def ready(self) -> None:
        """Collect the pages, unless this is a start."""
        if sys.argv[1:2] and sys.argv[1] in STARTING:
            SimpleAdminConfig.ready(self)
        else:
            super().ready()
