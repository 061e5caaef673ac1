#!/usr/bin/env python3
"""Writes a listing of the public API of `streamer` and `streamer-protocol`, so that a diff shows each change of the API.

    python3 core/public_api.py            writes core/public-api.txt
    python3 core/public_api.py --check    fails if core/public-api.txt is out of date

Each line is an item with its signature, or the traits that a type implements. Items that are `#[doc(hidden)]` are not listed,
because they are only for this workspace. The script reads rustdoc's JSON output, which stable rustdoc writes only with
RUSTC_BOOTSTRAP=1. The variable is set only for rustdoc, because cargo would
recompile all dependencies if it were set for cargo.
"""

import difflib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTING = ROOT / "core" / "public-api.txt"
PACKAGES = ("streamer", "streamer-protocol")


def rustdoc_json(package):
    with tempfile.TemporaryDirectory() as folder:
        rustdoc = Path(folder) / "rustdoc"
        rustdoc.write_text('#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n')
        rustdoc.chmod(0o755)
        metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
        target = json.loads(subprocess.check_output(metadata, cwd=ROOT))["target_directory"]
        command = ["cargo", "rustdoc", "--quiet", "--locked", "--lib", "--package", package, "--", "-Z", "unstable-options"]
        command += ["--output-format", "json", "--cap-lints", "allow"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "RUSTDOC": str(rustdoc)}, check=True)
    return json.loads(Path(target, "doc", package.replace("-", "_") + ".json").read_text())


class Listing:
    """The lines of the listing for one crate."""

    def __init__(self, crate):
        self.index = {str(key): item for key, item in crate["index"].items()}
        # Lines of the listing. Key: the path of the line's item, and the line's position among the lines of that item.
        self.lines = {}
        root = self.index[str(crate["root"])]
        self.module(root, root["name"])

    def item(self, identifier):
        return self.index.get(str(identifier))

    def add(self, path, line, place=0):
        self.lines[(*path.split("::"),), place] = line

    def __str__(self):
        modules = sum(line.startswith("mod ") for line in self.lines.values())
        parts = ("mod", "field", "variant", "impl")
        items = sum(line.split()[0] not in parts for line in self.lines.values())
        root, = {path[0] for path, _ in self.lines}
        lines = [line for _, line in sorted(self.lines.items())]
        return "\n".join([f"# {root}: modules: {modules}, other items, without fields and variants: {items}", "", *lines, ""])

    def module(self, module, path):
        self.add(path, f"mod {path}")
        for identifier in module["inner"]["module"]["items"]:
            if child := self.item(identifier):
                self.any(child, path)

    def any(self, item, parent, name=None):
        (kind, inner), = item["inner"].items()
        path = f"{parent}::{name or item['name']}"
        if kind == "use":
            self.reexport(inner, parent)
        elif kind == "module":
            self.module(item, path)
        elif kind == "function":
            self.add(path, self.function(inner, path))
        elif kind in ("struct", "enum", "union"):
            self.add(path, f"{self.marks(item)}{kind} {path}{self.generics(inner['generics'])}")
            getattr(self, kind)(inner, path)
            self.impls(inner, path)
        elif kind == "trait":
            bounds = self.bounds(inner["bounds"])
            self.add(path, f"trait {path}{self.generics(inner['generics'])}{': ' + bounds if bounds else ''}")
            self.members(inner["items"], path)
        elif kind == "type_alias":
            self.add(path, f"type {path}{self.generics(inner['generics'])} = {self.type(inner['type'])}")
        elif kind == "constant":
            self.add(path, f"const {path}: {self.type(inner['type'])}")
        elif kind == "static":
            self.add(path, f"static {path}: {self.type(inner['type'])}")
        elif kind == "assoc_const":
            self.add(path, f"const {path}: {self.type(inner['type'])}")
        elif kind == "assoc_type":
            value = f" = {self.type(inner['type'])}" if inner.get("type") else ""
            bounds = self.bounds(inner["bounds"])
            self.add(path, f"type {path}{': ' + bounds if bounds else ''}{value}")
        elif kind == "struct_field":
            self.add(path, f"field {path}: {self.type(inner)}")
        elif kind == "variant":
            self.variant(inner, path)
        elif kind in ("macro", "proc_macro"):
            self.add(path, f"macro {path}")
        else:
            sys.exit(f"public_api.py does not support items of kind {kind}: {path}")

    def reexport(self, inner, parent):
        target = self.item(inner["id"]) if inner["id"] is not None else None
        if target is None:
            name = "*" if inner["is_glob"] else inner["name"]
            self.add(f"{parent}::{name}", f"use {parent}::{name} = {inner['source']}")
        elif inner["is_glob"]:
            for identifier in target["inner"]["module"]["items"]:
                if child := self.item(identifier):
                    self.any(child, parent)
        else:
            self.any(target, parent, inner["name"])

    @staticmethod
    def marks(item):
        attributes = [attribute if isinstance(attribute, str) else json.dumps(attribute) for attribute in item["attrs"]]
        return "#[non_exhaustive] " if any("non_exhaustive" in attribute for attribute in attributes) else ""

    def struct(self, inner, path):
        kind = inner["kind"]
        if isinstance(kind, dict):
            fields = kind["plain"]["fields"] if "plain" in kind else kind["tuple"]
            self.members(fields, path)

    def enum(self, inner, path):
        self.members(inner["variants"], path)

    def union(self, inner, path):
        self.members(inner["fields"], path)

    def variant(self, inner, path):
        kind = inner["kind"]
        if kind == "plain":
            self.add(path, f"variant {path}")
        elif "tuple" in kind:
            fields = (self.item(field) for field in kind["tuple"] if field is not None)
            types = ", ".join(self.type(field["inner"]["struct_field"]) for field in fields if field)
            self.add(path, f"variant {path}({types})")
        else:
            self.add(path, f"variant {path} {{ .. }}")
            self.members(kind["struct"]["fields"], path)

    def members(self, identifiers, path):
        for identifier in identifiers:
            if identifier is not None and (member := self.item(identifier)):
                self.any(member, path)

    def impls(self, inner, path):
        traits = set()
        for identifier in inner["impls"]:
            item = self.item(identifier)
            implementation = item["inner"]["impl"]
            if implementation["is_synthetic"] or implementation["blanket_impl"]:
                continue
            trait = implementation["trait"]
            if trait is None:
                self.members(implementation["items"], path)
            elif not trait["path"].startswith("Structural"):
                traits.add(self.path(trait))
        if traits:
            self.add(path, f"impl {' + '.join(sorted(traits))} for {path}", place=1)

    def function(self, inner, path):
        header, signature = inner["header"], inner["sig"]
        marks = "".join(mark + " " for mark in ("const", "async", "unsafe") if header[f"is_{mark}"])
        inputs = []
        for name, kind in signature["inputs"]:
            text = self.type(kind)
            inputs.append({"Self": "self", "&Self": "&self", "&mut Self": "&mut self"}.get(text) if name == "self" else None)
            inputs[-1] = inputs[-1] or f"{name}: {text}"
        output = f" -> {self.type(signature['output'])}" if signature["output"] else ""
        parameters, _, clauses = self.generics(inner["generics"]).partition(" where ")
        where = f" where {clauses}" if clauses else ""
        return f"{marks}fn {path}{parameters}({', '.join(inputs)}){output}{where}"

    def generics(self, generics):
        parameters = []
        for parameter in generics["params"]:
            (kind, inner), = parameter["kind"].items()
            if kind == "type" and not inner["is_synthetic"]:
                bounds = self.bounds(inner["bounds"])
                default = f" = {self.type(inner['default'])}" if inner["default"] else ""
                parameters.append(parameter["name"] + (f": {bounds}" if bounds else "") + default)
            elif kind == "lifetime" and not parameter["name"].startswith("'_"):
                parameters.append(parameter["name"])
            elif kind == "const":
                parameters.append(f"const {parameter['name']}: {self.type(inner['type'])}")
        clauses = []
        for clause in generics["where_predicates"]:
            (kind, inner), = clause.items()
            if kind == "bound_predicate":
                clauses.append(f"{self.type(inner['type'])}: {self.bounds(inner['bounds'])}")
        text = f"<{', '.join(parameters)}>" if parameters else ""
        return text + (f" where {', '.join(clauses)}" if clauses else "")

    def bounds(self, bounds):
        return " + ".join(filter(None, map(self.bound, bounds)))

    def bound(self, bound):
        (kind, inner), = bound.items()
        if kind == "outlives":
            return inner
        if kind == "trait_bound":
            maybe = "?" if inner["modifier"] == "maybe" else ""
            return maybe + self.path(inner["trait"])
        return None

    def path(self, path):
        name = path.get("path") or path.get("name")
        return name.rsplit("::", 1)[-1] + self.arguments(path.get("args"))

    def arguments(self, arguments):
        if not arguments:
            return ""
        (kind, inner), = arguments.items()
        if kind == "parenthesized":
            output = f" -> {self.type(inner['output'])}" if inner["output"] else ""
            return f"({', '.join(map(self.type, inner['inputs']))}){output}"
        if kind != "angle_bracketed":
            return f"({kind})"
        texts = []
        for argument in inner["args"]:
            if argument == "infer":
                texts.append("_")
                continue
            (of, value), = argument.items()
            texts.append(self.type(value) if of == "type" else value if of == "lifetime" else value.get("expr", "_"))
        for constraint in inner["constraints"]:
            (of, value), = constraint["binding"].items()
            if of == "equality":
                (_, term), = value.items()
                texts.append(f"{constraint['name']} = {self.type(term)}")
            else:
                texts.append(f"{constraint['name']}: {self.bounds(value)}")
        return f"<{', '.join(texts)}>" if texts else ""

    def type(self, kind):
        (of, inner), = kind.items()
        if of == "resolved_path":
            return self.path(inner)
        if of in ("generic", "primitive"):
            return inner
        if of == "borrowed_ref":
            lifetime = f"{inner['lifetime']} " if inner["lifetime"] else ""
            return f"&{lifetime}{'mut ' if inner['is_mutable'] else ''}{self.type(inner['type'])}"
        if of == "tuple":
            return f"({', '.join(map(self.type, inner))})"
        if of == "slice":
            return f"[{self.type(inner)}]"
        if of == "array":
            return f"[{self.type(inner['type'])}; {inner['len']}]"
        if of == "impl_trait":
            return f"impl {self.bounds(inner)}"
        if of == "dyn_trait":
            lifetime = [inner["lifetime"]] if inner["lifetime"] else []
            return f"dyn {' + '.join([self.path(bound['trait']) for bound in inner['traits']] + lifetime)}"
        if of == "qualified_path":
            trait = inner["trait"]
            owner = self.type(inner["self_type"])
            if trait and (trait.get("path") or trait.get("name")):
                owner = owner if owner == "Self" else f"<{owner} as {self.path(trait)}>"
            return f"{owner}::{inner['name']}"
        if of == "function_pointer":
            inputs = ", ".join(self.type(kind) for _, kind in inner["sig"]["inputs"])
            output = f" -> {self.type(inner['sig']['output'])}" if inner["sig"]["output"] else ""
            return f"fn({inputs}){output}"
        if of == "raw_pointer":
            return f"*{'mut' if inner['is_mutable'] else 'const'} {self.type(inner['type'])}"
        return "_"


def listing():
    return "\n".join(str(Listing(rustdoc_json(package))) for package in PACKAGES)


def main():
    now = listing()
    if "--check" not in sys.argv[1:]:
        LISTING.write_text(now)
        return 0
    before = LISTING.read_text() if LISTING.exists() else ""
    if now == before:
        return 0
    changes = difflib.unified_diff(before.splitlines(), now.splitlines(), "core/public-api.txt", "the code", lineterm="", n=0)
    print("\n".join(changes))
    print("The public API has changed. If the change is intended, run python3 core/public_api.py and commit core/public-api.txt.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
