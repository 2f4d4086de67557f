"""The parts of a stored CREATE TABLE that no pragma tells: collations, checks, generated columns' expressions, names of constraints.

SQLite has parsed the text before it stored it, so this need not judge it, only find its way through it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<skip>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<string>'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    |(?P<word>[\w$\x80-\U0010ffff]+(?:\.\d+)?)
    |(?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)
#: Words that begin a clause of a column, with the word before them after which they don't.
_CLAUSES = {
    "CONSTRAINT": (),
    "PRIMARY": (),
    "NOT": (),
    "NULL": ("NOT", "SET", "DEFAULT"),
    "UNIQUE": (),
    "CHECK": (),
    "DEFAULT": ("SET",),
    "COLLATE": (),
    "REFERENCES": (),
    "GENERATED": (),
    "AS": ("ALWAYS",),
}
_TABLE_CONSTRAINTS = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")


@dataclass(frozen=True)
class Token:
    """A piece of SQL: ``kind`` is string, name (in quotes), word or mark."""

    kind: str
    text: str

    def is_word(self, *words: str) -> bool:
        """Whether this is one of these bare words, in whatever case."""
        return self.kind == "word" and self.text.upper() in words

    @property
    def identifier(self) -> str:
        """The name that this token stands for."""
        if self.text[0] in "\"`'":
            return self.text[1:-1].replace(self.text[0] * 2, self.text[0])
        return self.text[1:-1] if self.text[0] == "[" else self.text


@dataclass(frozen=True)
class ColumnText:
    """What the text says of a column, each clause without its spaces and comments."""

    collation: str | None
    expression: str | None
    """Of a generated column."""
    constraints: tuple[str, ...]
    """PRIMARY KEY, NOT NULL with a conflict clause, UNIQUE and CHECK."""


@dataclass(frozen=True)
class Reference:
    """What the text says of a foreign key beyond the pragma."""

    name: str
    deferred: str
    """'', or the DEFERRABLE clause."""


@dataclass(frozen=True)
class TableText:
    """A CREATE TABLE statement, taken apart."""

    columns: dict[str, ColumnText]
    constraints: tuple[str, ...]
    references: tuple[Reference, ...]
    """In the order of the text."""
    autoincrement: bool


def tokens(sql: str) -> list[Token]:
    """The pieces of a statement without spaces and comments."""
    found = ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(sql))
    return [Token(kind, text) for kind, text in found if kind != "skip"]


def normal(pieces: Iterable[Token]) -> str:
    """One text for all ways to space, comment and capitalise the same SQL; names in quotes and strings stay as they are."""
    text = ""
    for piece in pieces:
        word = piece.text.upper() if piece.kind == "word" else piece.text
        tight = not text or text[-1] in "(." or (piece.kind == "mark" and word in ",).")
        text += word if tight else f" {word}"
    return text


def leaves_others_out(trigger: str) -> bool:
    """Whether a stored CREATE TRIGGER statement's trigger acts after a change, which stays, and can then keep other triggers from acting."""
    pieces = tokens(trigger)[2:]
    name = 3 if pieces[1].text == "." else 1
    after = pieces[name].is_word("AFTER")
    return after and any(
        piece.is_word("RAISE") and pieces[number + 1].text == "(" and pieces[number + 2].is_word("IGNORE") for number, piece in enumerate(pieces[:-2])
    )


def parse_table(sql: str) -> TableText:
    """Takes a stored CREATE TABLE statement apart."""
    pieces = tokens(sql)
    items = _items(pieces)
    columns: dict[str, ColumnText] = {}
    constraints: list[str] = []
    for item in items:
        if columns and item[0].is_word(*_TABLE_CONSTRAINTS):
            constraints.append(normal(item))
        else:
            columns[item[0].identifier] = _column(item[1:])
    body = [piece for item in items for piece in [*item, Token("mark", ",")]]
    return TableText(columns, tuple(constraints), _references(body), any(piece.is_word("AUTOINCREMENT") for piece in body))


def _items(pieces: list[Token]) -> list[list[Token]]:
    """The comma-separated items between the outermost parentheses."""
    depth, items = 0, [[]]  # type: int, list[list[Token]]
    for piece in pieces:
        if piece.kind == "mark" and piece.text == ")":
            depth -= 1
            if depth == 0:
                break
        if depth == 1 and piece.kind == "mark" and piece.text == ",":
            items.append([])
        elif depth > 0:
            items[-1].append(piece)
        if piece.kind == "mark" and piece.text == "(":
            depth += 1
    return items


def _column(pieces: list[Token]) -> ColumnText:
    collation, expression, constraints, name = None, None, [], ""
    for clause in _clauses(pieces):
        first = clause[0]
        if first.is_word("CONSTRAINT"):
            name = normal(clause) + " "
            continue
        if first.is_word("COLLATE"):
            collation = clause[1].identifier
        elif first.is_word("GENERATED", "AS"):
            start = next(number for number, piece in enumerate(clause) if piece.text == "(")
            end = max(number for number, piece in enumerate(clause) if piece.text == ")")
            expression = normal(clause[start + 1 : end])
        elif first.is_word("PRIMARY", "UNIQUE", "CHECK") or (first.is_word("NOT") and len(clause) > 2):
            constraints.append(name + normal(clause))
        name = ""
    return ColumnText(collation, expression, tuple(constraints))


def _clauses(pieces: list[Token]) -> list[list[Token]]:
    """A column's clauses, without the type before them."""
    found: list[list[Token]] = []
    depth, before = 0, Token("mark", "")
    for number, piece in enumerate(pieces):
        after = pieces[number + 1] if number + 1 < len(pieces) else before
        word = piece.text.upper()
        begins = depth == 0 and piece.kind == "word" and word in _CLAUSES and not before.is_word(*_CLAUSES[word])
        if begins and not (word == "NOT" and after.is_word("DEFERRABLE")):
            found.append([piece])
        elif found:
            found[-1].append(piece)
        depth += (piece.text == "(") - (piece.text == ")") if piece.kind == "mark" else 0
        before = piece
    return found


def _references(body: list[Token]) -> tuple[Reference, ...]:
    """Each REFERENCES of the text, with the name before it and the DEFERRABLE clause behind it."""
    found = []
    name, depth = "", 0
    for number, piece in enumerate(body):
        depth += (piece.text == "(") - (piece.text == ")") if piece.kind == "mark" else 0
        if depth:
            continue
        if piece.text == "," or piece.is_word("PRIMARY", "UNIQUE", "CHECK", "NULL", "DEFAULT", "COLLATE", "GENERATED"):
            name = ""
        elif piece.is_word("CONSTRAINT"):
            name = body[number + 1].identifier
        elif piece.is_word("REFERENCES"):
            found.append(Reference(name, _deferred(body[number + 1 :])))
            name = ""
    return tuple(found)


def _deferred(pieces: list[Token]) -> str:
    clause: list[Token] = []
    for number, piece in enumerate(pieces):
        if (piece.kind == "mark" and piece.text == ",") or piece.is_word("CONSTRAINT", "REFERENCES"):
            break
        if piece.is_word("DEFERRABLE") and not clause:
            clause = [pieces[number - 1], piece] if pieces[number - 1].is_word("NOT") else [piece]
        elif clause and piece.is_word("INITIALLY"):
            clause += [piece, pieces[number + 1]]
    return normal(clause)
