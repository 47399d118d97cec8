"""The words of a command that somebody pasted, split as bash splits it; nothing is expanded, and nothing is run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_OPERATORS = frozenset("|;&<>\n")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "0": "\0"}
_NUMBER = re.compile(r"x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_{(])")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of the first command; `notes` say what a shell would have done with the text besides."""

    words: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()


def words_of(text: str) -> Words:
    """Split a command up to what another one begins with; raises ValueError for quotes that are not closed."""
    return _Splitter(text.strip()).split()


@dataclass(slots=True)
class _Splitter:
    text: str
    at: int = 0
    word: str | None = None
    words: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def split(self) -> Words:
        while self.at < len(self.text):
            letter = self.text[self.at]
            self.at += 1
            if letter in _OPERATORS:
                rest = self.text[self.at - 1 :].strip()
                self.notes += ["What stands behind the first command was left out."] if rest else []
                break
            if letter in " \t\r":
                self._end()
            elif letter == "\\":
                self._escaped()
            elif letter == "'":
                self._add(self._up_to("'"))
            elif letter == '"':
                self._add(self._in_double_quotes())
            elif letter == "$" and self.text[self.at : self.at + 1] == "'":
                self.at += 1
                self._add(self._in_ansi_quotes())
            else:
                self._look_for_variable(self.at - 1)
                self._add(letter)
        self._end()
        return Words(tuple(self.words), tuple(dict.fromkeys(self.notes)))

    def _add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def _end(self) -> None:
        if self.word is not None:
            self.words.append(self.word)
        self.word = None

    def _escaped(self) -> None:
        """Take the letter behind a backslash, which joins two lines at the end of one."""
        following = self.text[self.at : self.at + 2]
        if following.startswith(("\n", "\r\n")):
            self.at += len(following) if following == "\r\n" else 1
            return
        self._add(following[:1])
        self.at += 1

    def _up_to(self, quote: str) -> str:
        end = self.text.find(quote, self.at)
        if end < 0:
            raise ValueError("a quotation is not closed")
        found = self.text[self.at : end]
        self.at = end + 1
        return found

    def _in_double_quotes(self) -> str:
        found = ""
        while self.at < len(self.text):
            letter = self.text[self.at]
            self.at += 1
            if letter == '"':
                return found
            if letter == "\\" and self.text[self.at : self.at + 1] in ("$", "`", '"', "\\", "\n"):
                letter = self.text[self.at].replace("\n", "")
                self.at += 1
            else:
                self._look_for_variable(self.at - 1)
            found += letter
        raise ValueError("a quotation is not closed")

    def _in_ansi_quotes(self) -> str:
        """Read $'…' of bash, which browsers write for letters that are none of ASCII."""
        found = ""
        while self.at < len(self.text):
            letter = self.text[self.at]
            self.at += 1
            if letter == "'":
                return found
            if letter == "\\":
                number = _NUMBER.match(self.text, self.at)
                if number is not None:
                    self.at = number.end()
                    found += _letter(number)
                    continue
                letter = self.text[self.at : self.at + 1]
                letter = _ESCAPES.get(letter, letter)
                self.at += 1
            found += letter
        raise ValueError("a quotation is not closed")

    def _look_for_variable(self, at: int) -> None:
        if self.text[at] == "`" or _VARIABLE.match(self.text, at):
            self.notes.append("A variable of the shell was not expanded: what it holds is not known here.")


def _letter(number: re.Match[str]) -> str:
    code = int(number[4], 8) if number[4] else int(number[1] or number[2] or number[3], 16)
    return chr(code) if code <= 0x10FFFF else "\ufffd"
