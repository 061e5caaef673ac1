//! The mistakes that users of typed handlers and layers make, and what the compiler says of each.

#[test]
fn a_wrong_handler_or_layer_does_not_compile_and_the_compiler_says_what_would() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
