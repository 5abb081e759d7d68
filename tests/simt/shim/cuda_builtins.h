// The built-in variables and functions of CUDA C++, for a program that runs on the runtime.
#pragma once
#include "cuda_math.h"
#include "cuda_types.h"
#include "runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

// Constant to each CUDA thread, though not to the runtime.
extern "C" {
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
int printf(const char*, ...);
}
constexpr int warpSize = 32;

// ---------------------------------------------------------------- shared memory

namespace simt {

// What translate.py makes of a __shared__ declaration.
template <class Variable, size_t alignment>
Variable& shared(const void* site) {
    return *static_cast<Variable*>(shared_variable(site, sizeof(Variable), alignment));
}

}  // namespace simt

// ---------------------------------------------------------------- barriers and fences
// __builtin_LINE() as a default argument is the line of the call.

inline void __syncthreads(int line = __builtin_LINE()) { simt::barrier(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    simt::sync_warp(mask, line);
}
inline void __threadfence() { simt::thread_fence(); }
inline void __threadfence_block() {}

// ---------------------------------------------------------------- shuffles and votes

namespace simt {

template <class To, class From>
To bits_as(From value) {
    static_assert(sizeof(From) <= 8 && sizeof(To) <= 8, "a shuffle takes 8 bytes at most");
    To result = {};
    __builtin_memcpy(&result, &value, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
    return result;
}

// The group of `width` lanes that this lane belongs to.
struct Group {
    int lane, first, width;

    Group(int width, const char* what, int line)
        : lane(simt::lane()), first(lane / width * width), width(width) {
        if (width < 1 || width > 32 || (width & (width - 1)))
            fail("%s at line %d: width %d is not a power of two up to 32", what, line, width);
    }
};

template <class T>
T shuffle_value(unsigned mask, T value, int source_lane, const char* what, int line) {
    const auto bits = bits_as<unsigned long long>(value);
    return bits_as<T>(shuffle(mask, bits, source_lane, what, line));
}

}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              int line = __builtin_LINE()) {
    const simt::Group group(width, "__shfl_sync", line);
    const int lane = group.first + (source & (width - 1));
    return simt::shuffle_value(mask, value, lane, "__shfl_sync", line);
}

// A lane may read its own and earlier groups; from a later group it gets its own value.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = warpSize,
                  int line = __builtin_LINE()) {
    const simt::Group group(width, "__shfl_xor_sync", line);
    const int partner = group.lane ^ flip;
    const int lane = partner < group.first + width ? partner : group.lane;
    return simt::shuffle_value(mask, value, lane, "__shfl_xor_sync", line);
}

// Past the end of its group a lane gets its own value; likewise below.
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   int line = __builtin_LINE()) {
    const simt::Group group(width, "__shfl_down_sync", line);
    const bool inside = delta < unsigned(group.first + width - group.lane);
    const int lane = inside ? group.lane + int(delta) : group.lane;
    return simt::shuffle_value(mask, value, lane, "__shfl_down_sync", line);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 int line = __builtin_LINE()) {
    const simt::Group group(width, "__shfl_up_sync", line);
    const bool inside = delta <= unsigned(group.lane - group.first);
    const int lane = inside ? group.lane - int(delta) : group.lane;
    return simt::shuffle_value(mask, value, lane, "__shfl_up_sync", line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return simt::ballot(mask, predicate != 0, "__ballot_sync", line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return simt::ballot(mask, predicate != 0, "__any_sync", line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return simt::ballot(mask, predicate == 0, "__all_sync", line) == 0;
}
inline unsigned __activemask() { return simt::live_lanes(); }

// ---------------------------------------------------------------- atomics
// On the types for which CUDA has them, less the floating-point ones: a sum in the order in which
// threads happen to arrive is not reproducible, so the library has none, and none compiles here.
// CUDA threads switch only where they wait, so plain code is atomic.

#define SIMT_ATOMIC(name, type, update)                                                       \
    __attribute__((no_sanitize("thread"), noinline)) inline type name(type* address,          \
                                                                      type operand) {         \
        simt::before_atomic(address);                                                         \
        const type old = *address;                                                            \
        *address = update;                                                                    \
        return old;                                                                           \
    }
#define SIMT_ATOMIC_ALL_TYPES(name, update)       \
    SIMT_ATOMIC(name, int, update)                \
    SIMT_ATOMIC(name, unsigned, update)           \
    SIMT_ATOMIC(name, unsigned long long, update)

SIMT_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(operand)))
SIMT_ATOMIC(atomicAdd, unsigned, old + operand)
SIMT_ATOMIC(atomicAdd, unsigned long long, old + operand)
SIMT_ATOMIC(atomicSub, int, int(unsigned(old) - unsigned(operand)))
SIMT_ATOMIC(atomicSub, unsigned, old - operand)
SIMT_ATOMIC_ALL_TYPES(atomicMax, old > operand ? old : operand)
SIMT_ATOMIC(atomicMax, long long, old > operand ? old : operand)
SIMT_ATOMIC_ALL_TYPES(atomicMin, old < operand ? old : operand)
SIMT_ATOMIC(atomicMin, long long, old < operand ? old : operand)
SIMT_ATOMIC_ALL_TYPES(atomicAnd, old & operand)
SIMT_ATOMIC_ALL_TYPES(atomicOr, old | operand)
SIMT_ATOMIC_ALL_TYPES(atomicXor, old ^ operand)
SIMT_ATOMIC_ALL_TYPES(atomicExch, operand)
SIMT_ATOMIC(atomicExch, float, operand)
SIMT_ATOMIC(atomicInc, unsigned, old >= operand ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, unsigned, old == 0 || old > operand ? operand : old - 1)
#undef SIMT_ATOMIC_ALL_TYPES
#undef SIMT_ATOMIC

#define SIMT_COMPARE_AND_SWAP(type)                                                               \
    __attribute__((no_sanitize("thread"), noinline)) inline type atomicCAS(type* address,         \
                                                                           type expected,         \
                                                                           type desired) {        \
        simt::before_atomic(address);                                                             \
        const type old = *address;                                                                \
        if (old == expected) *address = desired;                                                  \
        return old;                                                                               \
    }
SIMT_COMPARE_AND_SWAP(int)
SIMT_COMPARE_AND_SWAP(unsigned)
SIMT_COMPARE_AND_SWAP(unsigned long long)
#undef SIMT_COMPARE_AND_SWAP

// ---------------------------------------------------------------- bits and cached accesses

inline unsigned __umulhi(unsigned x, unsigned y) {
    return unsigned(static_cast<unsigned long long>(x) * y >> 32);
}
inline int __mulhi(int x, int y) { return int(static_cast<long long>(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }

inline int __float_as_int(float x) { return simt::bits_as<int>(x); }
inline float __int_as_float(int x) { return simt::bits_as<float>(x); }
inline unsigned __float_as_uint(float x) { return simt::bits_as<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bits_as<double>(x); }

template <class T> T __ldg(const T* address) { return *address; }
template <class T> T __ldca(const T* address) { return *address; }
template <class T> T __ldcg(const T* address) { return *address; }
template <class T> T __ldcs(const T* address) { return *address; }
template <class T> void __stcg(T* address, T value) { *address = value; }
template <class T> void __stcs(T* address, T value) { *address = value; }

[[noreturn]] inline void __trap() { simt::fail("__trap()"); }
