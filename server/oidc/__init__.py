"""OpenID Connect: who somebody is, as an issuer that the team trusts says it."""
