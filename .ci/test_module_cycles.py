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
        """The arrows within cycles, as `from -> to: names`, without the numbers of lines."""
        with tempfile.TemporaryDirectory() as folder:
            workspace = Path(folder).resolve()
            for name, text in {"Cargo.toml": MANIFEST, **files}.items():
                path = workspace / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = module_cycles.main(workspace)
        arrows = [line.strip() for line in printed.getvalue().splitlines() if " -> " in line]
        self.assertEqual(code, 1 if arrows else 0)
        return arrows

    def siblings(self, one, two, rest=""):
        return self.check({"src/lib.rs": "mod one; mod two;" + rest, "src/one.rs": one, "src/two.rs": two})

    TIED = ["src/one.rs -> src/two.rs: Two (line 1)", "src/two.rs -> src/one.rs: One (line 1)"]

    def test_two_files_that_use_each_other(self):
        self.assertEqual(
            self.siblings("use crate::two::Two; pub struct One(Two);", "use crate::one::One; pub struct Two(Box<One>);"),
            self.TIED,
        )

    def test_one_direction_is_no_cycle(self):
        self.assertEqual(self.siblings("use crate::two::Two; pub struct One(Two);", "pub struct Two;"), [])

    def test_nested_groups_renames_and_super(self):
        self.assertEqual(
            self.siblings("use super::{two::{self, Two as Other}}; pub struct One(Other);", "use super::one::{One}; pub struct Two(Box<One>);"),
            self.TIED,
        )

    def test_paths_without_use(self):
        self.assertEqual(
            self.siblings("pub struct One(crate::two::Two);", "pub struct Two; impl Two { fn f() { super::one::One::new(); } }"),
            self.TIED,
        )

    def test_names_through_an_imported_module(self):
        self.assertEqual(
            self.siblings("use crate::two; pub struct One(two::Two);", "use crate::one; pub struct Two(Box<one::One>);"),
            self.TIED,
        )

    def test_names_through_a_glob(self):
        self.assertEqual(
            self.siblings("use crate::two::*; pub struct One(Two);", "use crate::one::*; pub struct Two(Box<One>);"),
            self.TIED,
        )

    def test_a_use_within_a_function(self):
        self.assertEqual(
            self.siblings("pub struct One; fn f() { use crate::two::Two; Two::new() }", "use crate::one::One; pub struct Two(One);"),
            self.TIED,
        )

    def test_a_name_that_comes_through_a_re_export(self):
        self.assertEqual(
            self.siblings("use crate::Two; pub struct One(Two);", "use crate::One; pub struct Two(Box<One>);", "pub use one::One; pub use two::Two;"),
            self.TIED,
        )

    def test_a_re_export_alone_ties_nothing(self):
        self.assertEqual(
            self.check({"src/lib.rs": "mod child; pub use child::Child; pub struct Parent;", "src/child.rs": "use super::Parent; pub struct Child(Parent);"}),
            [],
        )

    def test_a_parent_that_uses_its_child(self):
        self.assertEqual(
            self.check({"src/lib.rs": "mod child; use child::Child; pub struct Parent;", "src/child.rs": "use super::Parent; pub struct Child(Parent);"}),
            ["src/child.rs -> src/lib.rs: Parent (line 1)", "src/lib.rs -> src/child.rs: Child (line 1)"],
        )

    def test_a_cycle_of_three(self):
        arrows = self.check({
            "src/lib.rs": "mod a;",
            "src/a/mod.rs": "mod b; mod c; mod d; mod beside;",
            "src/a/b.rs": "use super::c::C; pub struct B(C);",
            "src/a/c.rs": "use super::d::D; pub struct C(D);",
            "src/a/d.rs": "use super::b::B; pub struct D(Box<B>);",
            "src/a/beside.rs": "use super::b::B;",
        })
        self.assertEqual([arrow.split(":")[0] for arrow in arrows], ["src/a/b.rs -> src/a/c.rs", "src/a/c.rs -> src/a/d.rs", "src/a/d.rs -> src/a/b.rs"])

    def test_modules_of_one_file_are_one_room(self):
        self.assertEqual(self.check({"src/lib.rs": "mod one { use super::two::Two; pub struct One; } mod two { use super::one::One; pub struct Two; }"}), [])

    def test_tests_comments_and_strings_do_not_count(self):
        self.assertEqual(
            self.siblings(
                "use crate::two::Two; pub struct One(Two);",
                '// crate::one::One\n/* crate::one::One /* nested */ crate::one::One */\npub struct Two; const A: &str = r#"crate::one::One "#;\n'
                "#[cfg(test)] mod tests { use crate::one::One; }\n#[cfg(test)] use crate::one::One;\n"
                "impl Two { #[cfg(test)] fn f(&self) -> crate::one::One { todo!() } fn g<'a>(a: &'a u8) -> char { 'x' } }",
            ),
            [],
        )

    def test_a_module_that_serde_is_told_of(self):
        arrows = self.siblings('#[derive(Serialize)] pub struct One { #[serde(with = "crate::two::as_text")] a: u8 }', "use crate::one::One; pub fn as_text(one: One) {}")
        self.assertEqual(arrows, ["src/one.rs -> src/two.rs: as_text (line 1)", "src/two.rs -> src/one.rs: One (line 1)"])


if __name__ == "__main__":
    unittest.main()
