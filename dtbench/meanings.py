"""The meanings of a class's fields: the comments beside them, for listings, schemas and the documentation."""

import ast
import inspect
import io
import re
import textwrap
import tokenize

_IGNORED = re.compile(r"(type|noqa)\b")  # for tools, not for readers


def field_meanings(kind: type) -> dict[str, str]:
    """Return what the comment behind each field says, or the lines of comments right above it where there is none.

    Fields of base classes are included, and a field without a comment has that of its base. Fields without any
    comment, and classes without source code, are left out.
    """
    meanings: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        meanings |= _own_meanings(one)
    return meanings


def _own_meanings(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):  # built-in, or defined in no file
        return {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    comments, alone = _comments(source)
    meanings = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = comments.get(node.end_lineno or node.lineno) or _above(node.lineno, comments, alone)
            if text:
                meanings[node.target.id] = text
    return meanings


def _above(line: int, comments: dict[int, str], alone: set[int]) -> str:
    """Return the lines of comments that end right above a line, as one."""
    first = line
    while first - 1 in alone:
        first -= 1
    return " ".join(comments[one] for one in range(first, line) if one in comments)


def _comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Return the comments by their lines, and the lines that hold nothing else."""
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.lstrip("#: ").strip()
        if token.type == tokenize.COMMENT and not _IGNORED.match(text):
            comments[token.start[0]] = text
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    return comments, alone
