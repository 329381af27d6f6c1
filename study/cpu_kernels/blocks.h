// What the kernels share: blocks of features as the processor's vectors, and torch's own threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

// The OpenMP runtime that torch has loaded: a second one would bring its own threads, and both would wait spinning.
extern "C" void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags);
extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();

#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
#elif defined(__AVX__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif
typedef float Block __attribute__((vector_size(LANES * sizeof(float))));  // LANES features of one token
typedef int32_t Integers __attribute__((vector_size(LANES * sizeof(int32_t))));

inline int64_t blocks_of(int64_t features) { return (features + LANES - 1) / LANES; }

// As many features as a block has, known to the compiler.
struct All {
    constexpr operator int64_t() const { return LANES; }
};

// visit(block, lanes) for all blocks of `features`; the last may have fewer lanes than All.
template <class Visit>
inline void for_blocks(int64_t features, Visit visit) {
    const int64_t whole = features / LANES;
    for (int64_t block = 0; block < whole; ++block) visit(block, All{});
    if (features % LANES) visit(whole, features % LANES);
}

// A block whose first `lanes` features are read, the others being zero; with a known number it is one instruction.
inline Block load(const float *from, int64_t lanes) {
    Block block{};
    if (lanes == LANES)
        std::memcpy(&block, from, sizeof block);
    else
        std::memcpy(&block, from, lanes * sizeof(float));
    return block;
}

inline void store(float *to, const Block &block, int64_t lanes) {
    if (lanes == LANES)
        std::memcpy(to, &block, sizeof block);
    else
        std::memcpy(to, &block, lanes * sizeof(float));
}

// work(thread, threads) once on each of `threads` threads, or fewer if the runtime gives fewer
template <class Work>
void in_parallel(int threads, Work work) {
    GOMP_parallel([](void *w) { (*static_cast<Work *>(w))(omp_get_thread_num(), omp_get_num_threads()); }, &work, threads, 0);
}
