"""Numbers of releases, as Semantic Versioning 2.0.0 (semver.org) orders them."""

import functools
import re
from dataclasses import dataclass

from ecavatar.errors import ConfigError

_NUMBER = r"(0|[1-9]\d*)"
_IDENTIFIER = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?", re.ASCII)


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """major.minor.patch, and a pre-release such as rc.1; ordered by precedence."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Version":
        """The version that `text` spells.

        Raises:
            ConfigError: not major.minor.patch, or with build metadata, by which two releases could not be ordered.
        """
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"version {text!r} is not major.minor.patch as semver.org has it, without build metadata. "
                "Give one such as 1.0.0, or 2.0.0-rc.1 for a pre-release."
            )
        major, minor, patch, prerelease = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(prerelease.split(".")) if prerelease else ())

    def __str__(self) -> str:
        release = f"{self.major}.{self.minor}.{self.patch}"
        return f"{release}-{'.'.join(self.prerelease)}" if self.prerelease else release

    def __lt__(self, other: "Version") -> bool:
        return self._precedence() < other._precedence()

    def may_break(self, previous: "Version") -> bool:
        """Whether those who use `previous` must expect that this one does not fit: a new major number, or below 1.0.0 a
        new minor one.
        """
        if self.major == previous.major == 0:
            return self.minor > previous.minor
        return self.major > previous.major

    def _precedence(self) -> tuple[object, ...]:
        identifiers = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in self.prerelease]
        return (self.major, self.minor, self.patch, not self.prerelease, identifiers)
