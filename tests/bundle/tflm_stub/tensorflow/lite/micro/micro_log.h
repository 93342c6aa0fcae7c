// A stand-in for tests.
#ifndef STUB_MICRO_LOG_H_
#define STUB_MICRO_LOG_H_
#include <cstdio>
#define MicroPrintf(...) (std::printf(__VA_ARGS__), std::printf("\n"), std::fflush(stdout))
#endif
