"""Tests of module_cycles.py: `python3 .ci/test_module_cycles.py`."""

import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
import module_cycles  # noqa: E402

MANIFEST = '[package]\nname = "demo"\n'


class Cycles(unittest.TestCase):
    def check(self, files):
        """Checks a crate of these files, and returns the printed imports within cycles, such as `src/one.rs -> src/two.rs: Two (line 1)`."""
        with tempfile.TemporaryDirectory() as folder:
            workspace = Path(folder).resolve()
            for name, text in {"Cargo.toml": MANIFEST, **files}.items():
                path = workspace / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = module_cycles.main(workspace)
        imports = [line.strip() for line in printed.getvalue().splitlines() if " -> " in line]
        self.assertEqual(code, 1 if imports else 0)
        return imports

    def siblings(self, one, two, rest=""):
        return self.check({"src/lib.rs": "mod one; mod two;" + rest, "src/one.rs": one, "src/two.rs": two})

    CYCLE = ["src/one.rs -> src/two.rs: Two (line 1)", "src/two.rs -> src/one.rs: One (line 1)"]

    def test_two_files_that_use_each_other_are_a_cycle(self):
        self.assertEqual(
            self.siblings("use crate::two::Two; pub struct One(Two);", "use crate::one::One; pub struct Two(Box<One>);"),
            self.CYCLE,
        )

    def test_import_in_one_direction_is_not_a_cycle(self):
        self.assertEqual(self.siblings("use crate::two::Two; pub struct One(Two);", "pub struct Two;"), [])

    def test_nested_groups_renames_and_super_are_resolved(self):
        self.assertEqual(
            self.siblings("use super::{two::{self, Two as Other}}; pub struct One(Other);", "use super::one::{One}; pub struct Two(Box<One>);"),
            self.CYCLE,
        )

    def test_path_without_use_is_an_import(self):
        self.assertEqual(
            self.siblings("pub struct One(crate::two::Two);", "pub struct Two; impl Two { fn f() { super::one::One::new(); } }"),
            self.CYCLE,
        )

    def test_name_through_an_imported_module_is_an_import(self):
        self.assertEqual(
            self.siblings("use crate::two; pub struct One(two::Two);", "use crate::one; pub struct Two(Box<one::One>);"),
            self.CYCLE,
        )

    def test_name_through_a_glob_is_an_import(self):
        self.assertEqual(
            self.siblings("use crate::two::*; pub struct One(Two);", "use crate::one::*; pub struct Two(Box<One>);"),
            self.CYCLE,
        )

    def test_use_inside_a_function_is_an_import(self):
        self.assertEqual(
            self.siblings("pub struct One; fn f() { use crate::two::Two; Two::new() }", "use crate::one::One; pub struct Two(One);"),
            self.CYCLE,
        )

    def test_name_through_a_re_export_counts_for_the_defining_file(self):
        self.assertEqual(
            self.siblings("use crate::Two; pub struct One(Two);", "use crate::One; pub struct Two(Box<One>);", "pub use one::One; pub use two::Two;"),
            self.CYCLE,
        )

    def test_re_export_alone_is_not_an_import(self):
        self.assertEqual(
            self.check({"src/lib.rs": "mod child; pub use child::Child; pub struct Parent;", "src/child.rs": "use super::Parent; pub struct Child(Parent);"}),
            [],
        )

    def test_parent_and_child_that_use_each_other_are_a_cycle(self):
        self.assertEqual(
            self.check({"src/lib.rs": "mod child; use child::Child; pub struct Parent;", "src/child.rs": "use super::Parent; pub struct Child(Parent);"}),
            ["src/child.rs -> src/lib.rs: Parent (line 1)", "src/lib.rs -> src/child.rs: Child (line 1)"],
        )

    def test_cycle_of_three_files_is_found(self):
        imports = self.check({
            "src/lib.rs": "mod a;",
            "src/a/mod.rs": "mod b; mod c; mod d; mod beside;",
            "src/a/b.rs": "use super::c::C; pub struct B(C);",
            "src/a/c.rs": "use super::d::D; pub struct C(D);",
            "src/a/d.rs": "use super::b::B; pub struct D(Box<B>);",
            "src/a/beside.rs": "use super::b::B;",
        })
        self.assertEqual([line.split(":")[0] for line in imports], ["src/a/b.rs -> src/a/c.rs", "src/a/c.rs -> src/a/d.rs", "src/a/d.rs -> src/a/b.rs"])

    def test_modules_in_the_same_file_are_not_a_cycle(self):
        self.assertEqual(self.check({"src/lib.rs": "mod one { use super::two::Two; pub struct One; } mod two { use super::one::One; pub struct Two; }"}), [])

    def test_imports_in_tests_comments_and_strings_are_ignored(self):
        self.assertEqual(
            self.siblings(
                "use crate::two::Two; pub struct One(Two);",
                '// crate::one::One\n/* crate::one::One /* nested */ crate::one::One */\npub struct Two; const A: &str = r#"crate::one::One "#;\n'
                "#[cfg(test)] mod tests { use crate::one::One; }\n#[cfg(test)] use crate::one::One;\n"
                "impl Two { #[cfg(test)] fn f(&self) -> crate::one::One { todo!() } fn g<'a>(a: &'a u8) -> char { 'x' } }",
            ),
            [],
        )

    def test_path_in_a_serde_attribute_is_an_import(self):
        imports = self.siblings('#[derive(Serialize)] pub struct One { #[serde(with = "crate::two::as_text")] a: u8 }', "use crate::one::One; pub fn as_text(one: One) {}")
        self.assertEqual(imports, ["src/one.rs -> src/two.rs: as_text (line 1)", "src/two.rs -> src/one.rs: One (line 1)"])


if __name__ == "__main__":
    unittest.main()
