"""Tokens: what a program hands on so that a later read, on either node, sees what it has committed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Token:
    """A position of the pair: everything that was committed at that position, on the writer of that term.

    ``str(token)`` and ``Token.parse`` carry it to another process.
    """

    term_no: int
    term_uuid: str
    node: str
    position: str

    def __str__(self) -> str:
        return json.dumps([self.term_no, self.term_uuid, self.node, self.position], separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The token that ``str`` wrote.

        Raises:
            ValueError: it is no token.
        """
        try:
            number, uuid, node, position = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ValueError("not a token of replstore") from error
        return cls(int(number), str(uuid), str(node), str(position))
