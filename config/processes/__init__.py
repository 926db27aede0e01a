"""The processes of an installation: who starts what, watches it, and ends it."""
