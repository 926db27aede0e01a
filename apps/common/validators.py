"""Validators that several models share."""

from django.core.validators import RegexValidator

SLUG = RegexValidator(r"^[a-z0-9]+(-[a-z0-9]+)*\Z", "Use lower-case letters, digits and single hyphens.")
