"""Signed checkpoints of the audit log: their form, their keys, and the places outside this machine they go to. No Django here."""
