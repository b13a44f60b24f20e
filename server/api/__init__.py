"""HTTP: bind a request, call one service, encode the answer. Nothing else. Only here is FastAPI."""
