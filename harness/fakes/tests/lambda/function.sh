#!/bin/sh
# Program of the functions under test: runs only the test of the test executable that acts as a Lambda runtime.
# `exec` keeps ignored signals ignored, so that the function's process ignores SIGTERM if IGNORE_TERM is set.
[ -n "$IGNORE_TERM" ] && trap '' TERM
exec "$TEST_EXECUTABLE" --exact runtime::lambda_runtime_runs_only_in_a_child_process --nocapture
