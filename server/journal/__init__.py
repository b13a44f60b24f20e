"""The durable ordered record of accepted operations, lane by lane."""
