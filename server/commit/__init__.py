"""The group-commit writer: many requests, one flushed transaction, then their answers."""
