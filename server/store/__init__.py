"""What answers reads: one module per noun. Every function works inside the caller's transaction."""
