"""Names of facts that more than one layer knows."""

RESTORED_AT = "restored_at_ms"
"""The moment of the last restore: whatever had been sent was sent before it. Each restore has another."""
