"""Schedules: what runs periodically, when it last did, and whether it is on. Superusers alone."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.common import authorise
from apps.common.admin import Ask, ConsoleAdmin, verb
from apps.common.admin.format import ago, count
from apps.common.admin.panels import Panel
from apps.common.admin.states import state_badge
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work

for _model in (PeriodicTask, IntervalSchedule, CrontabSchedule, ClockedSchedule, SolarSchedule):
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)


def change_schedule(task: PeriodicTask, **fields: Any) -> None:
    """Change a periodic task (`enabled`, `interval`), recorded; raises StepUpRequired for anybody but superusers."""
    about = {"kind": "schedule", "object_id": task.pk, "label": task.name}
    with unit_of_work():
        authorise.require_superuser("schedule.write", tenant_id=None, **about)
        before = {name: str(getattr(task, name)) for name in fields}
        for name, value in fields.items():
            setattr(task, name, value)
        task.save()
        audit(
            ControlEvent(
                event_type="schedule.updated",
                action="schedule.write",
                object_kind="schedule",
                object_id=str(task.pk),
                object_label=task.name,
                details={"before": before, "after": {name: str(value) for name, value in fields.items()}},
            )
        )


class IntervalForm(forms.Form):
    """How often a task runs."""

    every = forms.IntegerField(min_value=1, max_value=100_000, widget=forms.NumberInput(attrs={"class": "sy-input"}))
    period = forms.ChoiceField(choices=IntervalSchedule.PERIOD_CHOICES, widget=forms.Select(attrs={"class": "sy-input"}))

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Start from what is in force."""
        if obj.interval is not None:
            self.fields["every"].initial = obj.interval.every
            self.fields["period"].initial = obj.interval.period


def _ask(title: str, submit: str, sentence: str, *, danger: bool = False) -> Any:
    def asker(self: Any, request: HttpRequest, obj: Any) -> Ask:
        return Ask(title=title.format(obj.name), submit=submit, consequence=[sentence.format(when(obj))], danger=danger)

    return asker


def when(task: PeriodicTask) -> str:
    """Say when a task runs."""
    if task.interval is not None and task.interval.period == IntervalSchedule.SECONDS:
        every = task.interval.every
        length, unit = next(
            (length, unit)
            for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
            if every % length == 0
        )
        return f"every {unit}" if every == length else f"every {every // length} {unit}s"
    for schedule in (task.interval, task.crontab, task.clocked, task.solar):
        if schedule is not None:
            return str(schedule)
    return "never"


@admin.register(PeriodicTask)
class ScheduleAdmin(ConsoleAdmin):
    """Periodic tasks."""

    kind = "schedule"
    list_words = "schedules"
    list_display = ("shown_name", "shown_state", "shown_when", "shown_last", "shown_runs")
    search_fields = ("name", "task")
    ordering = ("name",)
    list_select_related = ("interval", "crontab", "clocked", "solar")
    show_add_link = False
    intro = "What Switchyard does by itself, and when it last did."
    empty_title = "Nothing is scheduled"
    empty_text = "Schedules are written when the product starts."
    actions_detail = ("switch_off", "switch_on", "change_interval")

    def tenant_of(self, obj: Any) -> Any:
        """Schedules stand above tenants."""
        return None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the product's own tasks."""
        rows: QuerySet[Any] = super().get_queryset(request).exclude(task="celery.backend_cleanup")
        return rows

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Tasks come with the product."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tasks come with the product."""
        return False

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """Changes are verbs."""
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return no fields."""
        return ((None, {"fields": ()}),)

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name and state."""
        return {
            "title": obj.name,
            "badges": [self.shown_state(obj)],
            "lead": obj.description,
            "facts": [
                ("runs", when(obj)),
                ("task", format_html('<code class="sy-code">{}</code>', obj.task)),
                ("last run", ago(obj.last_run_at)),
                ("runs so far", count(obj.total_run_count)),
            ],
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return its history."""
        from apps.audit.admin.history import history_panel

        return [history_panel("schedule", obj.pk)]

    @verb(
        description="Switch off",
        ask=_ask("Switch off {}?", "Switch off", "It no longer runs ({}) until it is switched on again.", danger=True),
        icon="pause",
        variant=ActionVariant.DANGER,
        superuser=True,
        applies=lambda task: task.enabled,
    )
    def switch_off(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Stop it."""
        change_schedule(obj, enabled=False)
        return f"{obj.name} is off."

    @verb(
        description="Switch on",
        ask=_ask("Switch on {}?", "Switch on", "It runs {} from now on."),
        icon="play_arrow",
        superuser=True,
        applies=lambda task: not task.enabled,
    )
    def switch_on(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Let it run."""
        change_schedule(obj, enabled=True)
        return f"{obj.name} is on."

    @verb(
        description="Change interval",
        ask=_ask("How often does {} run?", "Change", "Now: {}. A start of the product sets its own schedules again."),
        icon="schedule",
        form=IntervalForm,
        superuser=True,
        applies=lambda task: task.interval_id is not None,
    )
    def change_interval(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Give it another interval."""
        interval, _ = IntervalSchedule.objects.get_or_create(
            every=form.cleaned_data["every"], period=form.cleaned_data["period"]
        )
        change_schedule(obj, interval=interval)
        return f"{obj.name} runs {interval}."

    @display(description="Schedule", ordering="name")
    def shown_name(self, obj: Any) -> SafeString:
        """Name it and its task."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line sy-mono">{}</span></span>',
            obj.name,
            obj.task,
        )

    @display(description="State", ordering="enabled")
    def shown_state(self, obj: Any) -> SafeString:
        """Show whether it is on."""
        return state_badge("active" if obj.enabled else "paused", word="On" if obj.enabled else "Off")

    @display(description="Runs")
    def shown_when(self, obj: Any) -> str:
        """Show when it runs."""
        return when(obj)

    @display(description="Last run", ordering="last_run_at")
    def shown_last(self, obj: Any) -> SafeString | str:
        """Show when it last ran."""
        return ago(obj.last_run_at)

    @display(description="Runs so far", ordering="total_run_count")
    def shown_runs(self, obj: Any) -> SafeString:
        """Count its runs."""
        return format_html('<span class="sy-card-hide">{}</span>', count(obj.total_run_count))
