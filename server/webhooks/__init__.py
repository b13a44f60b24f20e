"""Sending to webhooks: the guard that judges where a URL leads, the request itself, the sender."""
