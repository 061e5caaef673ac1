#!/bin/sh
# A function for the tests: the test executable again, as the one test that is a runtime.
# A signal that is ignored here stays ignored in the program that takes this one's place.
[ -n "$IGNORE_TERM" ] && trap '' TERM
exec "$TEST_EXECUTABLE" --exact runtime::child_runtime --nocapture
