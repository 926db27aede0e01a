"""Encryption at rest, sealed tokens, digests and signed assertions. No Django here."""
