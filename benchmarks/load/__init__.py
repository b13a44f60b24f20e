"""The load generator: a process of its own, so that its work is not counted as a server's."""
