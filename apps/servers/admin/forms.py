"""Forms of the registry: one per way to reach a server, with secrets that go in and never come out."""

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from unfold.widgets import INPUT_CLASSES, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.servers import rules
from apps.servers.models import Server

MAX_IMPORT_BYTES = 1_000_000


class SecretRowsWidget(forms.Widget):
    """Rows of a name and a secret value. A value is never rendered, also not one that was just typed."""

    def __init__(self, *, noun: str, example: str) -> None:
        super().__init__()
        self.noun = noun
        self.example = example

    def value_from_datadict(self, data: Any, files: Any, name: str) -> dict[str, str]:
        """Return the rows that have a name or a value."""
        names, values = data.getlist(f"{name}-name"), data.getlist(f"{name}-value")
        rows = {}
        for index, given in enumerate(names):
            value = values[index] if index < len(values) else ""
            if given.strip() or value:
                rows[given.strip()] = value
        return rows

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Tell whether the form was sent without these rows."""
        return f"{name}-name" not in data

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """Render the names that were given, with empty values."""
        given = [*value] if isinstance(value, Mapping) else []
        rows = mark_safe("".join(self._row(name, one) for one in given))  # noqa: S308 - each row is format_html
        return format_html(
            '<div class="sy-rows" data-rows id="id_{name}"><div class="sy-rows" data-rows-list>{rows}</div><template>{empty}</template>'
            '<div><button type="button" class="sy-button sy-button-small" data-row-add>'
            '<span class="material-symbols-outlined" aria-hidden="true">add</span>Add {noun}</button>{again}</div></div>',
            name=name,
            rows=rows,
            empty=self._row(name, ""),
            noun=self.noun,
            again=mark_safe(' <span class="sy-help">Type the values again: they are not kept between attempts.</span>')
            if given
            else "",
        )

    def _row(self, name: str, given: str) -> SafeString:
        return format_html(
            '<div class="sy-secret-row" data-row><input class="sy-input" name="{name}-name" value="{given}" placeholder="{example}" '
            'aria-label="Name of the {noun}" autocomplete="off" spellcheck="false"><input class="sy-input" type="password" '
            'name="{name}-value" placeholder="Value" aria-label="Value of the {noun}" autocomplete="new-password">'
            '<button type="button" class="sy-button sy-button-ghost sy-button-small" data-row-remove aria-label="Remove this {noun}">'
            '<span class="material-symbols-outlined" aria-hidden="true">close</span></button></div>',
            name=name,
            given=given,
            example=self.example,
            noun=self.noun,
        )


class SecretRowsField(forms.Field):
    """Names and secret values, given once."""

    def __init__(self, *, noun: str, example: str, **kwargs: Any) -> None:
        super().__init__(widget=SecretRowsWidget(noun=noun, example=example), required=False, **kwargs)

    def clean(self, value: Any) -> dict[str, str]:
        """Return the rows; each has a name."""
        rows: dict[str, str] = value or {}
        if "" in rows:
            raise forms.ValidationError("Give each value a name.")
        return rows

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Tell whether anything was given."""
        return bool(data)


class ArgumentsField(forms.CharField):
    """Arguments of a command, one in each line: no shell reads them, so quotes are not needed and not removed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            widget=UnfoldAdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false"}), required=False, strip=False, **kwargs
        )

    def prepare_value(self, value: Any) -> str:
        """Return the lines of a list."""
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else (value or "")

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        """Return the lines as a list; empty lines are left out."""
        return [line for line in str(value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists."""
        return self.to_python(data) != list(initial or [])


class ServerForm(forms.ModelForm[Server]):
    """A server with the one place at which it is reached."""

    url = forms.CharField(
        required=False, label="URL", widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "https://mcp.example.com/mcp"})
    )
    command = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "npx", "spellcheck": "false"}),
        help_text="The program alone; it is started without a shell.",
    )
    args = ArgumentsField(label="Arguments", help_text="One in each line, exactly as the program gets them.")
    cwd = forms.CharField(required=False, label="Working directory", widget=UnfoldAdminTextInputWidget())
    headers = SecretRowsField(
        noun="header", example="Authorization", help_text="Sent with every request. Stored encrypted and never shown again."
    )
    env = SecretRowsField(
        noun="variable", example="API_TOKEN", label="Environment", help_text="Stored encrypted and never shown again."
    )
    console_request: HttpRequest | None = None

    class Meta:
        model = Server
        fields = (
            "slug", "name", "description", "transport", "auth", "oauth_scope", "review", "trust_annotations", "timeout_seconds", "max_concurrency", "idle_seconds",
        )  # fmt: skip
        help_texts = {
            "slug": "Its address is /mcp/ and this, and its tools are called slug__tool. It stays.",
            "name": "As people call it; empty = the slug.",
            "review": "What happens when the server offers something new or says something different than before.",
            "timeout_seconds": "Seconds a call may take.",
            "max_concurrency": "Calls at once; more are refused.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "name" in self.fields:
            self.fields["name"].required = False
        if "auth" in self.fields:
            self.fields["auth"].required = False
        self._endpoint_of_instance()
        if "transport" in self.fields:
            self.fields["transport"].choices = self._transports()  # type: ignore[attr-defined]
            self.fields["transport"].initial = self.initial.get("transport") or Server.Transport.HTTP

    def _endpoint_of_instance(self) -> None:
        if self.instance._state.adding:
            return
        endpoint = self.instance.endpoints.order_by("created_at").first()
        if endpoint is not None:
            for field in ("url", "command", "args", "cwd"):
                self.initial.setdefault(field, getattr(endpoint, field))
            if not (self.console_request and self.console_request.user.is_superuser):  # who may not change them sees no secrets
                self.initial["args"] = rules.hide_secrets(endpoint.args)

    def _transports(self) -> list[tuple[str, str]]:
        choices = [(value, str(label)) for value, label in Server.Transport.choices if value != Server.Transport.STDIO]
        choices.sort(key=lambda choice: choice[0] != Server.Transport.HTTP)
        user = self.console_request.user if self.console_request else None
        is_stdio = not self.instance._state.adding and self.instance.transport == Server.Transport.STDIO
        if is_stdio or (user is not None and user.is_superuser and settings.SWITCHYARD.stdio == "on"):
            choices.append((Server.Transport.STDIO.value, "stdio (a command on this machine)"))
        return choices

    def _post_clean(self) -> None:
        """Check the address beside the rest, so that all that is wrong is said at once; a form that is right is checked by the service."""
        super()._post_clean()  # type: ignore[misc]  # Django's, left out of the stubs
        cleaned = self.cleaned_data
        stdio = cleaned.get("transport", self.instance.transport) == Server.Transport.STDIO
        name, rule = ("command", rules.check_command) if stdio else ("url", rules.check_url)
        if self.errors and name in cleaned:
            try:
                rule(cleaned[name])
            except ValueError as error:
                self.add_error(name, str(error))

    def settings_given(self, *, all_of_them: bool) -> dict[str, Any]:
        """Return what the registry's services take: everything, or what was changed."""
        data = self.cleaned_data
        stdio = data.get("transport", self.instance.transport) == Server.Transport.STDIO
        belongs = {"command", "args", "cwd", "env"} if stdio else {"url", "headers", "auth", "oauth_scope"}
        foreign = {"url", "command", "args", "cwd", "headers", "env", "auth", "oauth_scope"} - belongs
        names = [*data] if all_of_them else self.changed_data
        given = {name: data[name] for name in names if name in data and name not in foreign and name != "tenant"}
        if not given.get("auth", "-"):  # left out of the form: as it is
            del given["auth"]
        if not all_of_them and "transport" in given:
            given |= {name: [] if name == "args" else "" for name in foreign - {"headers", "env", "auth", "oauth_scope"}}
        if all_of_them:
            given["headers" if not stdio else "env"] = data.get("headers" if not stdio else "env") or None
        return given


class CloneForm(forms.Form):
    """Under which name a copy is registered."""

    slug = forms.SlugField(max_length=40, widget=forms.TextInput(attrs={"class": "sy-input"}))
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs={"class": "sy-input"}))

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Offer a free-looking name."""
        self.fields["slug"].initial = f"{obj.slug}-copy"[:40]


class CredentialForm(forms.Form):
    """A credential to store: its value goes in and never comes out."""

    name = forms.CharField(
        max_length=200, widget=forms.TextInput(attrs={"class": "sy-input", "autocomplete": "off", "spellcheck": "false"})
    )
    value = forms.CharField(
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "sy-input", "autocomplete": "new-password"}),
        help_text="Stored encrypted and never shown again.",
    )

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Name what is to be replaced, if one is."""
        named = request.GET.get("name", "")
        if named:
            self.fields["name"].initial = named
            self.fields["name"].widget.attrs["readonly"] = True


class RemoveCredentialForm(forms.Form):
    """Which credential is to be deleted."""

    name = forms.CharField(widget=forms.HiddenInput)

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Keep the name that the link gave."""
        self.fields["name"].initial = request.GET.get("name", "")


class ImportForm(forms.Form):
    """The ecosystem's `{"mcpServers": {…}}`, pasted or as a file."""

    text = forms.CharField(
        required=False,
        label="mcpServers JSON",
        widget=forms.Textarea(
            attrs={
                "class": "sy-input sy-mono",
                "rows": 14,
                "spellcheck": "false",
                "placeholder": '{\n  "mcpServers": {\n    "github": {"url": "https://mcp.example.com/mcp"}\n  }\n}',
            }
        ),
    )
    file = forms.FileField(
        required=False,
        widget=forms.ClearableFileInput(attrs={"class": " ".join(INPUT_CLASSES), "accept": ".json,application/json"}),
    )

    document: dict[str, Any]

    def clean(self) -> dict[str, Any]:
        """Read the JSON, strictly enough to say what is wrong with it."""
        cleaned: dict[str, Any] = super().clean() or {}
        upload = cleaned.get("file")
        if upload is not None and upload.size > MAX_IMPORT_BYTES:
            raise forms.ValidationError("The file is larger than 1 MB.")
        try:
            text = upload.read().decode("utf-8-sig") if upload is not None else cleaned.get("text", "")
        except UnicodeDecodeError as error:
            raise forms.ValidationError("The file is not UTF-8 text.") from error
        if not text.strip():
            raise forms.ValidationError("Paste the JSON or choose a file.")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"Not JSON: {str(error)[:200]}.") from error
        if not isinstance(document, dict):
            raise forms.ValidationError('Expected an object with "mcpServers".')
        self.document = document
        cleaned["text"] = text
        return cleaned
