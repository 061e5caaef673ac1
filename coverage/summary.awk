# Reads an lcov report. Prints the percentage of lines that ran in each package: of all lines, as llvm-cov counts them,
# and of the lines outside unit tests. Nearly all lines of unit tests run, so they raise the first percentage. Then
# prints the files with the most lines that did not run. Fails if less than `min_lines` percent of the lines outside
# unit tests ran.
#
# Variables: `root` is the workspace's folder; `min_lines` is the required percentage.

function percent(ran, of) { return of ? 100 * ran / of : 100 }

# Fills `in_tests` with the numbers of the lines of unit tests. A block of unit tests is a `mod` after `#[cfg(test)]`, both
# at the start of a line, up to the next `}` at the start of a line.
function find_tests(path,    line, number, inside, attribute) {
    split("", in_tests)
    while ((getline line < path) > 0) {
        number++
        if (attribute && line ~ /^mod .*\{$/) inside = 1
        attribute = line == "#[cfg(test)]"
        if (inside) in_tests[number] = 1
        if (line == "}") inside = 0
    }
    close(path)
}

function count(package, hit, is_test) {
    lines[package]++
    ran[package] += hit
    if (!is_test) {
        own_lines[package]++
        own_ran[package] += hit
    }
}

function row(package) {
    printf "%-10s %8d %8.2f %% %13d %8.2f %%\n", package, lines[package], percent(ran[package], lines[package]), \
        own_lines[package], percent(own_ran[package], own_lines[package])
}

/^SF:/ {
    path = substr($0, 4)
    find_tests(path)
    file = substr(path, length(root) + 2)
    package = file
    sub("/.*", "", package)
    if (!(package in lines)) packages[++package_count] = package
}

/^DA:/ {
    split(substr($0, 4), entry, ",")
    hit = entry[2] > 0
    is_test = entry[1] in in_tests
    count(package, hit, is_test)
    count("all", hit, is_test)
    if (!hit && !is_test) missed[file]++
}

END {
    if (!lines["all"]) {
        print "coverage: the lcov report contains no lines" > "/dev/stderr"
        exit 1
    }
    printf "\n%-10s %8s %10s %13s %10s\n", "package", "lines", "ran", "outside tests", "ran"
    for (i = 1; i <= package_count; i++) row(packages[i])
    row("all")

    print "\nFiles with the most lines that did not run:"
    for (i = 1; i <= 10; i++) {
        worst = ""
        for (file in missed) if (worst == "" || missed[file] > missed[worst]) worst = file
        if (worst == "") break
        printf "%6d  %s\n", missed[worst], worst
        delete missed[worst]
    }

    own = percent(own_ran["all"], own_lines["all"])
    if (own < min_lines) {
        printf "\ncoverage: %.2f %% of the lines outside unit tests ran; at least %s %% are required\n", own, min_lines \
            > "/dev/stderr"
        exit 1
    }
}
