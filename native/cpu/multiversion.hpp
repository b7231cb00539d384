// MULTIVERSION compiles a function once for each instruction set. The loader chooses among the clones. Such a function
// must be in an anonymous namespace, or its resolver would be exported. Its helpers must be inline, or they would have
// one version only.
#pragma once

#include <cstddef>  // defines __GLIBC__ if glibc is the C library

// GCC accepts these architecture names from version 12 on.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define MULTIVERSION_X86 1
#define MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define MULTIVERSION_X86 0
#define MULTIVERSION
#endif

// Vectorises a loop whose output may be exactly the memory of an input, but never an overlapping part of it.
#if defined(__clang__)
#define IN_PLACE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define IN_PLACE _Pragma("GCC ivdep")
#else
#define IN_PLACE
#endif

namespace score_sde::cpu {

/// The clone that this machine runs: "x86-64-v4", "x86-64-v3" or "x86-64"; "baseline" in a build with one version.
const char* instructionSet();

/// Whether this machine can run this build. On x86-64, a build with one version needs AVX2 and FMA.
bool processorFits();

}  // namespace score_sde::cpu
