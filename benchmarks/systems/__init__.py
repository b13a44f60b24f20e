"""The servers that are measured: the proxy, its peers, the limit program, and what they need."""
