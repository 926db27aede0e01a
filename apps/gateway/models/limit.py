"""Limits on calls, and what is used of those that outlive a process."""

from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import Q

from apps.common.models import TenantModel

MOST_AMOUNT = 10**15
SUBJECTS = ("user", "role", "api_key", "server")
"""Fields that say whose a limit is; with none of them, and no pattern, it is the tenant's."""


def _one_subject() -> Q:
    """Return the rule that just the field is set which the subject names."""
    rule = Q()
    for subject in ("tenant", *SUBJECTS, "tool"):
        fields = Q(**{f"{name}__isnull": name != subject for name in SUBJECTS})
        rule |= Q(subject=subject) & fields & (~Q(pattern="") if subject == "tool" else Q(pattern=""))
    return rule


class Limit(TenantModel):
    """How many calls in a time, how many at once, or how much may be spent: of a tenant, user, role, API key, server, or of tools."""

    class Measure(models.TextChoices):
        """What is counted."""

        CALLS = "calls", "Calls"
        CONCURRENT = "concurrent", "Calls at once"
        SPEND = "spend", "Spending"

    class Window(models.TextChoices):
        """In what time."""

        SECOND = "second", "Second"
        MINUTE = "minute", "Minute"
        HOUR = "hour", "Hour"
        DAY = "day", "Day (UTC)"
        MONTH = "month", "Month (UTC)"

    class Subject(models.TextChoices):
        """Whose it is."""

        TENANT = "tenant", "Tenant"
        USER = "user", "User"
        ROLE = "role", "Role"
        API_KEY = "api_key", "API key"
        SERVER = "server", "Server"
        TOOL = "tool", "Tools"

    subject = models.CharField(max_length=8, choices=Subject)
    target = models.CharField(max_length=140, editable=False)
    """`tenant`, `tool:<pattern>`, or the subject and its id: `user:<id>`."""
    user = models.ForeignKey("accounts.User", null=True, blank=True, on_delete=models.CASCADE, related_name="limits")
    role = models.ForeignKey("accounts.Role", null=True, blank=True, on_delete=models.CASCADE, related_name="limits")
    api_key = models.ForeignKey("accounts.APIKey", null=True, blank=True, on_delete=models.CASCADE, related_name="limits")
    server = models.ForeignKey("servers.Server", null=True, blank=True, on_delete=models.CASCADE, related_name="limits")
    pattern = models.CharField(max_length=128, blank=True, help_text="Full names, server__tool; * matches any characters.")
    measure = models.CharField(max_length=10, choices=Measure, default=Measure.CALLS)
    amount = models.PositiveBigIntegerField(
        validators=[MaxValueValidator(MOST_AMOUNT)],
        help_text="Calls; for spending, millionths of the currency's unit. 0 stops all.",
    )
    window = models.CharField(max_length=6, choices=Window, blank=True, help_text="Not for calls at once.")
    each = models.BooleanField(default=False, help_text="Counts for each user alone, not for all together.")

    class Meta(TenantModel.Meta):
        ordering = ("-created_at",)
        constraints = (
            models.CheckConstraint(
                name="limit_one_subject",
                condition=_one_subject(),
            ),
            models.CheckConstraint(
                name="limit_window",
                condition=Q(measure="concurrent", window="") | (~Q(measure="concurrent") & ~Q(window="")),
            ),
            models.UniqueConstraint(fields=("tenant", "target", "measure", "window", "each"), name="limit_once"),
        )

    def __str__(self) -> str:
        return f"{self.whose}: {self.in_words}"

    @property
    def whose(self) -> str:
        """Say whose it is."""
        named = {
            "tenant": "the tenant",
            "user": f"the user {self.user}",
            "role": f"the role {self.role}",
            "api_key": f"the key {self.api_key.name if self.api_key is not None else ''}",
            "server": f"the server {self.server}",
            "tool": f"the tools {self.pattern}",
        }
        each = " for each user" if self.each else ""
        return named.get(self.subject, self.subject) + each

    @property
    def in_words(self) -> str:
        """Say what it allows."""
        if self.measure == self.Measure.SPEND:
            return f"{self.amount / 1_000_000:,.2f} spent a {self.window}"
        return (
            f"{self.amount:,} calls at once"
            if self.measure == self.Measure.CONCURRENT
            else f"{self.amount:,} calls a {self.window}"
        )


class LimitUse(models.Model):
    """How much of a day's or month's limit is used, kept so that a restart does not give it back."""

    limit = models.ForeignKey(Limit, on_delete=models.CASCADE, related_name="+")
    counter = models.CharField(max_length=80, unique=True)
    begin = models.BigIntegerField()
    """Of the window, in seconds since the epoch."""
    used = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return f"{self.counter}: {self.used}"
