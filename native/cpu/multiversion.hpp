// One source, one clone per instruction set, chosen when the library is loaded. A function marked so must stand in an
// anonymous namespace (its resolver would be exported otherwise) and take its helpers inline.
#pragma once

#include <cstddef>  // defines __GLIBC__ where it is the C library

// GCC knows these names from version 12 on.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define MULTIVERSION_X86 1
#define MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define MULTIVERSION_X86 0
#define MULTIVERSION
#endif

// Outputs may be the very memory of an input, never shifted against it.
#if defined(__clang__)
#define IN_PLACE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define IN_PLACE _Pragma("GCC ivdep")
#else
#define IN_PLACE
#endif

namespace score_sde::cpu {

/// What this machine runs of them: "x86-64-v4", "x86-64-v3" or "x86-64"; "baseline" where there is one version only.
const char* instructionSet();

/// Whether this machine runs a build that has one version only: on x86-64 that takes AVX2 and FMA.
bool processorFits();

}  // namespace score_sde::cpu
