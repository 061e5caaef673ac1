#!/usr/bin/env python3
"""Finds import cycles between the files of each crate of a Cargo workspace.

    python3 .ci/module_cycles.py [WORKSPACE]

File A imports file B if a `use` item or a path in A names an item that B defines. A name that is imported through a re-export
counts for the file that defines the item. `mod child;` is not an import, and neither is `pub use` alone.
Test code is ignored. Method calls are ignored too, because only a compiler knows which file defines a method.

Prints the files of each cycle with the names that they import from each other. Exits with 1 if there is a cycle.
"""

import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = re.compile(
    r"""
      (?P<skip>\s+|//[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>(?:br|cr|r)(?P<hashes>\#*)".*?"(?P=hashes)|[bc]?"(?:\\.|[^"\\])*")
    | (?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'])')
    | (?P<lifetime>'\w+)
    | (?P<word>(?:r\#)?[^\W\d]\w*)
    | (?P<number>\d[\w]*)
    | (?P<sign>::|->|=>|.)
    """,
    re.VERBOSE | re.DOTALL,
)
OPENING, CLOSING = ("(", "[", "{"), (")", "]", "}")
VALUES = ("const", "static", "type")
DEFINITIONS = ("fn", "struct", "enum", "union", "trait", *VALUES)
QUALIFIERS = ("async", "unsafe", "extern", "default", "safe")
# Keys of serde attributes whose value is a path in a string.
SERDE_PATHS = ("with", "serialize_with", "deserialize_with", "default", "skip_serializing_if", "try_from", "from", "into")


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


def tokens_of(source):
    tokens, at, line = [], 0, 1
    while at < len(source):
        match = TOKEN.match(source, at)
        kind, end = match.lastgroup, match.end()
        if kind == "hashes":
            kind = "string"
        if kind == "comment":
            depth = 1
            while depth and end < len(source):
                depth += {"/*": 1, "*/": -1}.get(source[end : end + 2], 0)
                end += 2 if source[end : end + 2] in ("/*", "*/") else 1
        elif kind not in ("skip", "char", "lifetime", "number"):
            tokens.append(Token(kind, match.group().removeprefix("r#"), line))
        line += source.count("\n", at, end)
        at = end
    return tokens


def closing(tokens, at):
    """Returns the index after the bracket that closes the bracket at index `at`."""
    depth = 0
    for index in range(at, len(tokens)):
        if tokens[index].kind == "sign":
            depth += (tokens[index].text in OPENING) - (tokens[index].text in CLOSING)
        if depth == 0:
            return index + 1
    return len(tokens)


def is_test(attribute):
    text = "".join(token.text for token in attribute)
    return text in ("cfg(test)", "test") or text.startswith("cfg(all(test,")


@dataclass
class Import:
    """One imported name of a `use` item; `name` is `None` for a glob import."""

    path: tuple
    name: str | None
    public: bool
    line: int


@dataclass(eq=False)
class Module:
    file: Path
    parent: "Module | None" = None
    children: dict = field(default_factory=dict)
    items: set = field(default_factory=set)
    imports: list = field(default_factory=list)
    # The tokens of each item of this module, as one list per item.
    bodies: list = field(default_factory=list)

    @property
    def root(self):
        return self.parent.root if self.parent else self


class Parser:
    """Parses the items of one module and of its descendants."""

    def __init__(self, module, folder):
        self.module = module
        # Folder that contains the files of child modules (`mod child;`).
        self.folder = folder

    def parse(self, tokens):
        at = 0
        while at < len(tokens):
            at = self.item(tokens, at)

    def item(self, tokens, at):
        start, attributes = at, []
        while tokens[at].text == "#" and at + 1 < len(tokens):
            opening = at + 2 if tokens[at + 1].text == "!" else at + 1
            end = closing(tokens, opening)
            attributes.append(tokens[opening + 1 : end - 1])
            if (at := end) == len(tokens):
                return at
        public = tokens[at].text == "pub"
        if public:
            at += 1
            if tokens[at].text == "(":
                at = closing(tokens, at)
        test = any(map(is_test, attributes))
        word = tokens[at].text
        if word == "mod" and at + 2 < len(tokens):
            return self.child(tokens, at, attributes, test)
        end = item_end(tokens, at)
        if test:
            return end
        if word == "use":
            self.module.imports += import_tree(tokens, at + 1, public)
            return end
        if name := defined_name(tokens, at):
            self.module.items.add(name)
        self.module.bodies.append(tokens[start:end])
        return end

    def child(self, tokens, at, attributes, test):
        name, sign = tokens[at + 1].text, tokens[at + 2].text
        end = at + 3 if sign == ";" else closing(tokens, at + 2)
        if test:
            return end
        if sign == "{":
            child = Module(self.module.file, self.module)
            Parser(child, self.folder / name).parse(tokens[at + 3 : end - 1])
        else:
            paths = [a[2].text.strip('"') for a in attributes if len(a) == 3 and a[0].text == "path"]
            files = [self.module.file.parent / path for path in paths]
            files += [self.folder / f"{name}.rs", self.folder / name / "mod.rs"]
            file = next(file for file in files if file.is_file())
            child = read_module(file, self.module, file.parent if file.name == "mod.rs" else self.folder / name)
        if child:
            self.module.children.setdefault(name, child)
        return end


def read_module(file, parent, folder):
    tokens = tokens_of(file.read_text())
    at = 0
    while at + 1 < len(tokens) and tokens[at].text == "#" and tokens[at + 1].text == "!":
        end = closing(tokens, at + 2)
        if is_test(tokens[at + 3 : end - 1]):
            return None
        at = end
    module = Module(file, parent)
    Parser(module, folder).parse(tokens[at:])
    return module


def item_end(tokens, at):
    """Returns the index after the last token of the item that begins at index `at`. The last token is `;` or a closing brace."""
    # In a constant, static, type or `use` item, a block does not end the item; only the `;` does.
    value = tokens[at].text == "use" or (tokens[at].text in VALUES and tokens[at + 1].text not in ("fn", "unsafe", "async"))
    while at < len(tokens):
        text = tokens[at].text if tokens[at].kind == "sign" else ""
        if text == ";":
            return at + 1
        if text in OPENING:
            at = closing(tokens, at)
            if text == "{" and not value:
                return at
        else:
            at += 1
    return at


def defined_name(tokens, at):
    words = [token.text for token in tokens[at : at + 8]]
    if words[:2] == ["macro_rules", "!"]:
        return words[2]
    while words and (words[0] in QUALIFIERS or words[0].startswith('"') or (words[0] == "const" and words[1] in ("fn", *QUALIFIERS))):
        words = words[1:]
    return next((word for word in words[1:] if word != "mut"), None) if words and words[0] in DEFINITIONS else None


def import_tree(tokens, at, public):
    """Returns the imports of the `use` tree that begins at index `at`."""
    imports = []

    def tree(at, path):
        """Parses one branch of the tree, and returns the index after the branch."""
        while True:
            token = tokens[at]
            if token.text == "{":
                at += 1
                while tokens[at].text != "}":
                    at = tree(at, path)
                    at += tokens[at].text == ","
                return at + 1
            if token.text == "*":
                imports.append(Import(path, None, public, token.line))
                return at + 1
            # A path that begins with `::` names an external crate. Its first segment is the token `::`, so the path resolves to no item of this workspace.
            path += (token.text,)
            at += 1
            if tokens[at].text == "::":
                at += 1
            elif token.text != "::":
                break
        # `use a::{self}` means `use a`.
        path = path[:-1] if token.text == "self" else path
        name = path[-1] if path else "self"
        if tokens[at].text == "as":
            name = tokens[at + 1].text
            at += 2
        imports.append(Import(path, name, public, token.line))
        return at

    tree(at, ())
    return imports


def lookup(module, name, want_module, local=(), seen=frozenset()):
    """Resolves `name` in `module`. Returns a `Module`, a pair of an item's name and its defining module, or `None`."""
    if (module, name, want_module) in seen:
        return None
    seen |= {(module, name, want_module)}
    imports = [*local, *module.imports]
    for one in imports:
        if one.name == name and (found := resolve(module, one.path, want_module, seen=seen)):
            return found
    if want_module and name in module.children:
        return module.children[name]
    if not want_module and name in module.items:
        return (name, module)
    for one in imports:
        if one.name is None and isinstance(target := resolve(module, one.path, True, seen=seen), Module):
            if found := lookup(target, name, want_module, seen=seen):
                return found
    return None


def resolve(module, path, want_module=False, local=(), seen=frozenset()):
    """Resolves `path` in `module`, with the same kinds of results as `lookup`. Ignores segments after an item, such as an associated function."""
    here = module
    for index, segment in enumerate(path):
        last = index == len(path) - 1
        scope = local if index == 0 else ()
        if segment == "crate":
            here = here.root
        elif segment == "self" and index == 0:
            here = module
        elif segment == "super" and here.parent:
            here = here.parent
        elif last and not want_module:
            return lookup(here, segment, False, scope, seen) or lookup(here, segment, True, scope, seen)
        elif inner := lookup(here, segment, True, scope, seen):
            here = inner
        else:
            return None if want_module else lookup(here, segment, False, scope, seen)
    return here


def paths_in(tokens):
    """Returns the paths in an item's tokens, each with its line number, and the imports of the `use` items inside the item."""
    paths, imports, at = [], [], 0
    while at < len(tokens):
        token, next_text = tokens[at], tokens[at + 1].text if at + 1 < len(tokens) else ""
        if token.text == "#" and next_text == "[":
            end = closing(tokens, at + 1)
            attribute = tokens[at + 2 : end - 1]
            paths += serde_paths(attribute)
            at = item_end(tokens, end) if is_test(attribute) else at + 2
        elif token.kind == "word" and token.text == "use" and next_text != "<":
            imports += import_tree(tokens, at + 1, False)
            at = item_end(tokens, at)
        elif token.kind == "word" and (at == 0 or tokens[at - 1].text not in (".", "::")):
            path = (token.text,)
            while at + 2 < len(tokens) and tokens[at + 1].text == "::" and tokens[at + 2].kind == "word":
                path += (tokens[at + 2].text,)
                at += 2
            paths.append((path, token.line))
            at += 1
        else:
            at += 1
    return paths, imports


def serde_paths(attribute):
    for key, equals, value in zip(attribute, attribute[1:], attribute[2:]):
        if key.text in SERDE_PATHS and equals.text == "=" and value.kind == "string":
            yield tuple(value.text.strip('"').split("<")[0].split("::")), value.line


def modules_below(module):
    yield module
    for child in module.children.values():
        yield from modules_below(child)


def edges_of(root):
    """Returns the imports between files, as {importing file: {imported file: {name: line}}}."""
    edges = {}
    for module in modules_below(root):
        named = [(one.path, one.line, ()) for one in module.imports if not one.public]
        for body in module.bodies:
            paths, local = paths_in(body)
            named += [(one.path, one.line, ()) for one in local]
            named += [(path, line, local) for path, line in paths]
        for path, line, local in named:
            found = resolve(module, path, local=local)
            if isinstance(found, tuple) and found[1].file != module.file:
                edges.setdefault(module.file, {}).setdefault(found[1].file, {}).setdefault(found[0], line)
    return edges


def cycles_of(edges):
    """Returns the strongly connected components with more than one file (Tarjan's algorithm)."""
    index, low, stack, cycles = {}, {}, [], []

    def visit(file):
        index[file] = low[file] = len(index)
        stack.append(file)
        for other in sorted(edges.get(file, ())):
            if other not in index:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], index[other])
        if low[file] == index[file]:
            at = stack.index(file)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                cycles.append(sorted(component))

    for file in sorted(edges):
        if file not in index:
            visit(file)
    return cycles


def roots_of(workspace):
    """Yields the root file of each library and program of a workspace's packages."""
    manifest = tomllib.loads((workspace / "Cargo.toml").read_text())
    members = manifest.get("workspace", {}).get("members", [])
    folders = {folder for member in members for folder in workspace.glob(member)}
    if "package" in manifest:
        folders.add(workspace)
    for folder in sorted(folders):
        package = tomllib.loads((folder / "Cargo.toml").read_text())
        targets = [package.get("lib", {}).get("path", "src/lib.rs"), "src/main.rs"]
        targets += [target["path"] for target in package.get("bin", []) if "path" in target]
        files = {folder / target for target in targets} | set(folder.glob("src/bin/*.rs"))
        yield from sorted(file for file in files if file.is_file())


def main(workspace):
    files, found = set(), 0
    for root in roots_of(workspace):
        crate = read_module(root, None, root.parent)
        files |= {module.file for module in modules_below(crate)}
        edges = edges_of(crate)
        for cycle in cycles_of(edges):
            found += 1
            print(f"cycle {found}: {len(cycle)} files")
            for file in cycle:
                for other in sorted(set(edges[file]) & set(cycle)):
                    names = ", ".join(f"{name} (line {line})" for name, line in sorted(edges[file][other].items()))
                    print(f"  {file.relative_to(workspace)} -> {other.relative_to(workspace)}: {names}")
    print(f"{found} import cycles among {len(files)} files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()))
