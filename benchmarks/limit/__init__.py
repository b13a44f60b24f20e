"""The limit program: this machine's ceiling for HTTP with a durable commit behind each answer."""
