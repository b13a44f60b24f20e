"""Delivery: what the journal holds goes to the workspace, in order per lane, and once."""
