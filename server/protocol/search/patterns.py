r"""Regular expressions that are matched in time linear in the text.

A search may run over every span a server holds, so a pattern must not be able to stop it. Taken is
what regular expressions share everywhere: literals, `.`, sets, groups, `|`, `* + ?`, `{m,n}`, `^`, `$`
and the classes `\d \w \s`. What needs to go back (references, looking around) is refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from server.domain.errors import MlflowError, invalid_parameter

LONGEST_PATTERN = 1000
_MOST_STATES = 2000
# Postgres takes no more either.
_MOST_REPEATS = 255
_DEEPEST = 50
_MOST_REMEMBERED = 200_000

_TOKEN = re.compile(
    r"""
      (?P<set>\[\^?\]?(?:\\.|\[:[a-z]+:\]|[^\]\\])*\])
    | (?P<class>\\[dDwWsS])
    | (?P<escape>\\[^A-Za-z0-9])
    | (?P<control>\\[nrtfv])
    | (?P<repeat>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??)
    | (?P<open>\((?:\?:)?)
    | (?P<close>\))
    | (?P<bar>\|)
    | (?P<anchor>[\^$])
    | (?P<any>\.)
    | (?P<refused>\\ | \(\? | \[)
    | (?P<literal>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_BOUNDS = re.compile(r"\{([0-9]+)(,?)([0-9]*)\}")
_POSIX_CLASSES = {"alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "space": r"\s", "word": r"\w"}

Test = Callable[[str], bool]


def check_pattern(pattern: str) -> None:
    """Turn away a pattern that cannot be matched here.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE`.
    """
    _compiled(pattern)


def matches(pattern: str | None, text: str | None) -> bool:
    """Whether the pattern matches anywhere in the text; nothing matches what is not there."""
    return pattern is not None and text is not None and _compiled(pattern).search(text)


# --- the automaton --------------------------------------------------------------------------


@dataclass(slots=True)
class _State:
    """Either a test of one character, an anchor, or a fork; the last state is the goal."""

    test: Test | None = None
    anchor: str = ""
    next: int = -1
    fork: int = -1


class _Matcher:
    """Walks all ways through the automaton at once, and remembers where each step led."""

    def __init__(self, states: list[_State], start: int, goal: int) -> None:
        self._states = states
        self._start = start
        self._goal = goal
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def search(self, text: str) -> bool:
        """Whether there is a match anywhere."""
        current = self._closure([self._start], at_start=True, at_end=not text)
        if self._goal in current:
            return True
        again = self._closure([self._start], at_start=False, at_end=False)
        last = len(text) - 1
        for index, character in enumerate(text):
            if index == last:
                return self._goal in self._stepped(current, character, at_end=True)
            step = (current, character)
            known = self._steps.get(step)
            if known is None:
                known = self._stepped(current, character, at_end=False) | again
                if len(self._steps) * len(self._states) >= _MOST_REMEMBERED:
                    self._steps.clear()
                self._steps[step] = known
            current = known
            if self._goal in current:
                return True
        return False

    def _stepped(self, current: frozenset[int], character: str, *, at_end: bool) -> frozenset[int]:
        following = []
        for index in current:
            state = self._states[index]
            if state.test is not None and state.test(character):
                following.append(state.next)
        if at_end:
            following.append(self._start)
        return self._closure(following, at_start=False, at_end=at_end)

    def _closure(self, indices: list[int], *, at_start: bool, at_end: bool) -> frozenset[int]:
        found: set[int] = set()
        waiting = list(indices)
        while waiting:
            index = waiting.pop()
            if index in found:
                continue
            found.add(index)
            state = self._states[index]
            if state.test is not None:
                continue
            if state.anchor and not (at_start if state.anchor == "^" else at_end):
                continue
            waiting += [target for target in (state.next, state.fork) if target >= 0]
        return frozenset(found)


# --- reading --------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> _Matcher:
    if len(pattern) > LONGEST_PATTERN:
        raise invalid_parameter(f"An RLIKE pattern is limited to {LONGEST_PATTERN} characters.")
    return _Reader(pattern).read()


@dataclass(frozen=True, slots=True)
class _Piece:
    """How to build a part of the automaton, given the state that follows it."""

    build: Callable[[int], int]


class _Reader:
    """From a pattern to its automaton, by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._tokens = [(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(pattern)]
        self._position = 0
        self._depth = 0
        self._states: list[_State] = []

    def read(self) -> _Matcher:
        """The automaton of the whole pattern."""
        piece = self._choice()
        if self._position < len(self._tokens):
            raise self._refusal()
        goal = self._add(_State())
        return _Matcher(self._states, piece.build(goal), goal)

    def _choice(self) -> _Piece:
        branches = [self._sequence()]
        while self._peek() == "bar":
            self._position += 1
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]

        def build(following: int) -> int:
            start = branches[-1].build(following)
            for branch in reversed(branches[:-1]):
                start = self._add(_State(next=branch.build(following), fork=start))
            return start

        return _Piece(build)

    def _sequence(self) -> _Piece:
        pieces: list[_Piece] = []
        while self._peek() not in ("", "bar", "close"):
            is_anchor = self._peek() == "anchor"
            piece = self._atom()
            if self._peek() == "repeat" and not is_anchor:
                piece = self._repeated(piece, self._take()[1])
            pieces.append(piece)

        def build(following: int) -> int:
            for piece in reversed(pieces):
                following = piece.build(following)
            return following

        return _Piece(build)

    def _atom(self) -> _Piece:
        kind, text = self._take()
        match kind:
            case "open":
                return self._group()
            case "anchor":
                return _Piece(lambda following: self._add(_State(anchor=text, next=following)))
            case "literal":
                return self._tested(lambda character: character == text)
            case "escape":
                return self._tested(lambda character: character == text[1])
            case "control":
                return self._tested(lambda character: character == _CONTROLS[text[1]])
            case "any":
                return self._tested(lambda character: character != "\n")
            case "set" | "class":
                return self._tested(self._set(text))
            case _:
                raise self._refusal()

    def _group(self) -> _Piece:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._refusal()
        piece = self._choice()
        if self._peek() != "close":
            raise self._refusal()
        self._position += 1
        self._depth -= 1
        return piece

    def _set(self, text: str) -> Test:
        for name, characters in _POSIX_CLASSES.items():
            text = text.replace(f"[:{name}:]", characters)
        if any(mark in text[1:] for mark in ("[:", "[=", "[.")):
            raise self._refusal()
        try:
            # A set by itself never goes back.
            expression = re.compile(text)
        except (re.error, OverflowError) as error:
            raise self._refusal() from error
        return lambda character: expression.fullmatch(character) is not None

    def _repeated(self, piece: _Piece, mark: str) -> _Piece:
        least, most = self._bounds(mark)

        def build(following: int) -> int:
            if most is None:
                loop = self._add(_State())
                self._states[loop].next = piece.build(loop)
                self._states[loop].fork = following
                start = loop
            else:
                start = following
                for _ in range(most - least):
                    start = self._add(_State(next=piece.build(start), fork=following))
            for _ in range(least):
                # A state of its own even for nothing: what is repeated must count.
                start = self._add(_State(next=piece.build(start)))
            return start

        return _Piece(build)

    def _bounds(self, mark: str) -> tuple[int, int | None]:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if mark[0] in simple:
            return simple[mark[0]]
        match = _BOUNDS.match(mark)
        assert match is not None
        least = int(match.group(1))
        most = least if not match.group(2) else int(match.group(3)) if match.group(3) else None
        if least > _MOST_REPEATS or (most is not None and not least <= most <= _MOST_REPEATS):
            raise self._refusal()
        return least, most

    def _tested(self, test: Test) -> _Piece:
        return _Piece(lambda following: self._add(_State(test=test, next=following)))

    def _add(self, state: _State) -> int:
        if len(self._states) >= _MOST_STATES:
            raise self._refusal()
        self._states.append(state)
        return len(self._states) - 1

    def _peek(self) -> str:
        return self._tokens[self._position][0] if self._position < len(self._tokens) else ""

    def _take(self) -> tuple[str, str]:
        self._position += 1
        return self._tokens[self._position - 1]

    def _refusal(self) -> MlflowError:
        return invalid_parameter(
            f"Invalid regular expression '{self._pattern}' in filter: it is not well-formed, too large, or"
            " uses references or looks around, which are not supported."
        )
