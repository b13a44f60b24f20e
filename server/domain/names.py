"""Names: those the proxy makes up, and those the workspace can find again."""

import hashlib
import re
import secrets

_ADJECTIVES = [
    "amber",
    "bold",
    "brisk",
    "calm",
    "clean",
    "clever",
    "cosmic",
    "crisp",
    "dapper",
    "eager",
    "early",
    "fair",
    "fleet",
    "fond",
    "free",
    "fresh",
    "gentle",
    "glad",
    "golden",
    "grand",
    "handy",
    "happy",
    "honest",
    "humble",
    "jolly",
    "keen",
    "kind",
    "lively",
    "loyal",
    "lucky",
    "mellow",
    "merry",
    "mighty",
    "neat",
    "nimble",
    "noble",
    "peppy",
    "placid",
    "polite",
    "proud",
    "quick",
    "quiet",
    "rapid",
    "rare",
    "ready",
    "royal",
    "serene",
    "sharp",
    "shiny",
    "silent",
    "smooth",
    "spry",
    "stately",
    "steady",
    "sunny",
    "swift",
    "tidy",
    "tranquil",
    "upbeat",
    "valiant",
    "vivid",
    "warm",
    "wise",
    "witty",
    "zesty",
]
_NOUNS = [
    "ant",
    "auk",
    "bat",
    "bear",
    "bee",
    "bison",
    "boar",
    "cat",
    "cod",
    "colt",
    "crab",
    "crane",
    "crow",
    "deer",
    "dove",
    "duck",
    "eagle",
    "eel",
    "elk",
    "emu",
    "finch",
    "fish",
    "fly",
    "fox",
    "frog",
    "goat",
    "goose",
    "grouse",
    "gull",
    "hare",
    "hawk",
    "heron",
    "horse",
    "ibis",
    "jay",
    "kite",
    "koi",
    "lamb",
    "lark",
    "lion",
    "loon",
    "lynx",
    "mole",
    "moose",
    "moth",
    "mouse",
    "newt",
    "orca",
    "otter",
    "owl",
    "panda",
    "perch",
    "pike",
    "pony",
    "quail",
    "ram",
    "raven",
    "robin",
    "seal",
    "shark",
    "sheep",
    "shrew",
    "skunk",
    "slug",
    "snail",
    "snake",
    "squid",
    "stag",
    "stork",
    "swan",
    "tern",
    "toad",
    "trout",
    "turtle",
    "vole",
    "wasp",
    "whale",
    "wolf",
    "wren",
    "yak",
    "zebra",
]

_FINDABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\- .]{0,254}")
_NOT_FINDABLE = re.compile(r"[^A-Za-z0-9_\- .]+")
_NAME_LENGTH = 200
_DIGEST_LENGTH = 8


def make_run_name() -> str:
    """A name for a run that was given none, as stock servers make them: adjective-noun-number."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(1000)}"


def upstream_experiment_name(name: str) -> str:
    """The name under which an experiment is delivered.

    The workspace accepts `/` in a name and then cannot find the experiment by it
    (azure-sdk-for-python#45209), so `/Users/me/exp` of Databricks becomes `exp-1f3a…`: the last
    part, readable, and a digest of the whole, so that two folders' `exp` stay two experiments.
    """
    if _FINDABLE.fullmatch(name) and name == name.strip():
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    last_part = name.rstrip("/").rpartition("/")[2]
    readable = _NOT_FINDABLE.sub("-", last_part).strip("-_ .")[:_NAME_LENGTH]
    return f"{readable}-{digest}" if readable else f"experiment-{digest}"


def upstream_model_name(name: str) -> str:
    """The name under which a registered model is delivered (`[A-Za-z0-9._-]`, alphanumeric first)."""
    readable = re.sub(r"[^A-Za-z0-9._\-]+", "-", name).lstrip("-._")[:_NAME_LENGTH]
    if readable == name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{readable}-{digest}" if readable else f"model-{digest}"
