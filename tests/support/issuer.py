"""A small OpenID Connect issuer: discovery, keys, a login that asks nobody, tokens.

Everything is signed for real; what a test wants wrong it says so (`issuer.token(audience=…)`).
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

JsonObject = dict[str, Any]


class LocalIssuer:
    """Runs on a free loopback port while its `with` block lasts."""

    def __init__(self, *, client_id: str = "mlproxy", client_secret: str = "issuer's secret") -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.claims: JsonObject = {"preferred_username": "ada@example.org", "roles": ["write"]}
        self.is_down = False
        self.asked: list[str] = []
        self._codes: dict[str, JsonObject] = {}
        self.new_key()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer._get(self)

            def do_POST(self) -> None:
                issuer._post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def new_key(self) -> None:
        """Sign with another key from now on; the old one is not published any more."""
        self._key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def public_key_pem(self) -> bytes:
        """The key that everybody may know."""
        return self._key.as_pem(private=False)

    def token(self, *, lasts: float = 600, key: RSAKey | None = None, **changes: Any) -> str:
        """A token of somebody with `claims`; `changes` replace claims (None leaves one out)."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": self.client_id,
            "sub": "1234",
            "iat": now,
            "exp": int(now + lasts),
            **self.claims,
            **changes,
        }
        key = key or self._key
        header = {"alg": "RS256", "kid": self._key.kid}
        return jwt.encode(header, {name: value for name, value in claims.items() if value is not None}, key)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- its routes ---

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        self.asked.append(parts.path)
        if self.is_down:
            _answer(request, 503, {})
        elif parts.path == "/.well-known/openid-configuration":
            paths = {"authorization": "authorize", "token": "token"}
            document = {f"{name}_endpoint": f"{self.url}/{path}" for name, path in paths.items()}
            _answer(request, 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **document})
        elif parts.path == "/keys":
            _answer(request, 200, KeySet([self._key]).as_dict(private=False))
        elif parts.path == "/authorize":
            self._authorize(request, {name: values[0] for name, values in parse_qs(parts.query).items()})
        else:
            _answer(request, 404, {})

    def _authorize(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        code = secrets.token_hex(8)
        self._codes[code] = {"nonce": query["nonce"], "challenge": query["code_challenge"]}
        assert query["code_challenge_method"] == "S256"
        request.send_response(302)
        back = urlencode({"code": code, "state": query["state"]})
        request.send_header("Location", f"{query['redirect_uri']}?{back}")
        request.end_headers()

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        login = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_known = form.get("client_secret") == self.client_secret
        if login is None or login["challenge"] != challenge or not is_known:
            _answer(request, 400, {"error": "invalid_grant"})
            return
        tokens = {
            "access_token": "unused",
            "token_type": "Bearer",
            "id_token": self.token(nonce=login["nonce"]),
        }
        _answer(request, 200, tokens)


def _answer(request: BaseHTTPRequestHandler, status: int, document: JsonObject) -> None:
    body = json.dumps(document).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
