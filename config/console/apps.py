"""Django configuration of the console: unfold, with Switchyard's own admin site."""

from django.contrib.admin.apps import AdminConfig
from unfold.apps import BasicAppConfig


class UnfoldConfig(BasicAppConfig):
    """unfold without its automatic replacement of the admin site."""


class ConsoleConfig(AdminConfig):
    """The admin, with `SwitchyardAdminSite` as its site."""

    default_site = "config.console.site.SwitchyardAdminSite"
