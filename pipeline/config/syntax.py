"""The YAML of configurations: the core types of YAML 1.2, and nothing that could be executed.

PyYAML follows YAML 1.1, where `1e-3` is text, `no` is false, `010` is 8 and `12:30` is 750. Here
they are a number, text, 10 and text, as in the core schema of YAML 1.2 (section 10.3.2).
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from egapipe.pipeline.errors import one_line

_TAG = "tag:yaml.org,2002:"
# In the order they are tried, each with the characters it may begin with.
_SCALARS = (
    ("merge", r"<<", "<"),
    ("null", r"|~|null|Null|NULL", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
)

_RARE_BREAKS = re.compile("[\x85\u2028\u2029]")


def parse(text: str) -> Any:
    """The value that a YAML document stands for: None, bool, int, float, str, list and dict of str.

    Raises ValueError, in one line with the line number: not YAML, a key that comes twice or is not
    text, and any tag that would make another object.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ValueError(_line(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump(tree: Mapping[str, Any]) -> str:
    """A document that `parse` reads back as it was; keys keep their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Scalars of the core schema; no other tag, `!!python/...` among them, has a constructor."""

    yaml_implicit_resolvers = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        _TAG + name: yaml.SafeLoader.yaml_constructors[_TAG + name]
        for name in ("null", "str", "seq", "map")
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Of two equal keys PyYAML takes the second; here that is a mistake."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "of several values"
                raise _mistake(f"the key {shown} is not text: quote it", key)
            if key.value in seen:
                raise _mistake(f"the key {key.value!r} comes twice", key)
            seen.add(key.value)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would take for something else; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Two equal settings are two settings."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """PyYAML folds the rare line breaks of Unicode unless they are escaped."""
        style = '"' if _RARE_BREAKS.search(data) else None
        return self.represent_scalar(f"{_TAG}str", data, style)


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _scalar(convert: Callable[[str], Any], name: str) -> Callable[[_Loader, yaml.Node], Any]:
    """Explicit tags (`!!int x`) can ask for what the text is not, so any text may come."""

    def construct(loader: _Loader, node: yaml.Node) -> Any:
        text = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        try:
            return convert(text)
        except (KeyError, ValueError):
            raise _mistake(f"{text[:20]!r} is not {name}", node) from None

    return construct


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """JSON writes a character beyond 16 bits as two halves, which YAML would leave apart."""
    text: str = loader.construct_scalar(node)
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _mistake("an escape is half a character", node) from None


def _refuse(loader: _Loader, node: yaml.Node) -> Any:
    tag = node.tag.replace(_TAG, "!!")
    raise _mistake(f"the tag {tag} is refused: configurations are plain values", node)


def _mistake(problem: str, node: yaml.Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


for _name, _pattern, _first in _SCALARS:
    _regexp = re.compile(rf"(?:{_pattern})\Z")
    _Loader.add_implicit_resolver(_TAG + _name, _regexp, list(_first))
    _Dumper.add_implicit_resolver(_TAG + _name, _regexp, list(_first))
_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.add_constructor(_TAG + "str", _text)
_Loader.add_constructor(_TAG + "bool", _scalar(_bool, "true or false"))
_Loader.add_constructor(_TAG + "int", _scalar(_int, "an integer"))
_Loader.add_constructor(_TAG + "float", _scalar(_float, "a finite number"))
_Loader.add_constructor(None, _refuse)


def _line(error: yaml.MarkedYAMLError) -> str:
    """`line 3, column 5: what is wrong`, without the excerpt of the file."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or ""
    if error.context and problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    return " ".join(f"{where}{problem or error.context}".split())
