"""Taking secrets out of text that somebody will read: log lines, reasons, messages.

Two ways: by form (signatures, tokens, passwords with a name before them), and by value, for the secrets that
this process was itself started with, which a foreign answer can repeat in any form.
"""

import re

_MARK = "[redacted]"
# A shorter one would be found in words that have nothing to do with it.
_SHORTEST_KNOWN = 8
_FORMS = (
    (re.compile(r"(?i)\b(sig|skoid|sktid)=[^&\s\"'<>]+"), rf"\1={_MARK}"),
    (
        re.compile(
            r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?)"
            r"(?:(?:bearer|basic|digest|negotiate|sharedkey\w*)\s+)?[^\s\"',]+"
        ),
        rf"\1{_MARK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?!token\b)[A-Za-z0-9%+/=._\-~]+"), rf"\1 {_MARK}"),
    (re.compile(r"\beyJ[\w-]{5,}(\.[\w-]*)*"), _MARK),
    (re.compile(r"\b(mlp_[0-9a-f]{12}_)[\w-]+"), rf"\1{_MARK}"),
    (re.compile(r"(?i)\b(mlproxy_(?:session|login))=[^;\s\"']+"), rf"\1={_MARK}"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.\-]*://[^\s/:@\"']*):[^\s/@\"']+@"), rf"\1:{_MARK}@"),
    (
        re.compile(
            r"(?i)\b(accountkey|sharedaccess(?:key|signature)|client_secret|client_assertion|access_token"
            r"|refresh_token|id_token|password|secret|x-identity-header)([\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]+"
        ),
        rf"\1\2{_MARK}",
    ),
)
_known: set[str] = set()


def hide_values(*secrets: str | None) -> None:
    """From now on `redact` takes these out wherever they stand. For the secrets this process was given."""
    _known.update(secret for secret in secrets if secret is not None and len(secret) >= _SHORTEST_KNOWN)


def redact(text: str) -> str:
    """The text without signatures, tokens, keys and passwords."""
    for secret in _known:
        text = text.replace(secret, _MARK)
    for form, replacement in _FORMS:
        text = form.sub(replacement, text)
    return text
