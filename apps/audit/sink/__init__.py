"""The durable end of the audit log: a writer thread with a connection of its own, group commits, a hash chain. No Django here."""
