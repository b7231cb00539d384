'use strict';
// The last word of an installation that found no prebuilt binary and could not compile one.
process.stderr.write(
  `score-sde: there is no prebuilt binary for ${process.platform}-${process.arch}, and compiling one failed (its output ` +
    'is above): that takes CMake 3.23, a C++20 compiler and Python; https://cmake.org has the first.\n',
);
process.exitCode = 1;
