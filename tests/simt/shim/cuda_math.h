// CUDA's mathematical functions, overloaded on float and double as CUDA C++ has them.
//
// Not <math.h>: that takes far longer to read, and declares names (INFINITY, M_PI) that NVRTC does
// not have, so that a kernel using them would pass here and fail there.
#pragma once

#define SIMT_UNARY(name)                                            \
    inline double name(double x) { return __builtin_##name(x); }    \
    inline float name(float x) { return __builtin_##name##f(x); }   \
    inline float name##f(float x) { return __builtin_##name##f(x); }
#define SIMT_BINARY(name)                                                          \
    inline double name(double x, double y) { return __builtin_##name(x, y); }      \
    inline float name(float x, float y) { return __builtin_##name##f(x, y); }      \
    inline float name##f(float x, float y) { return __builtin_##name##f(x, y); }
#define SIMT_PREDICATE(name)                                      \
    inline bool name(double x) { return __builtin_##name(x); }    \
    inline bool name(float x) { return __builtin_##name(x); }

SIMT_UNARY(acos) SIMT_UNARY(acosh) SIMT_UNARY(asin) SIMT_UNARY(asinh) SIMT_UNARY(atan)
SIMT_UNARY(atanh) SIMT_UNARY(cbrt) SIMT_UNARY(ceil) SIMT_UNARY(cos) SIMT_UNARY(cosh)
SIMT_UNARY(erf) SIMT_UNARY(erfc) SIMT_UNARY(exp) SIMT_UNARY(exp2) SIMT_UNARY(expm1)
SIMT_UNARY(fabs) SIMT_UNARY(floor) SIMT_UNARY(lgamma) SIMT_UNARY(log) SIMT_UNARY(log10)
SIMT_UNARY(log1p) SIMT_UNARY(log2) SIMT_UNARY(logb) SIMT_UNARY(nearbyint) SIMT_UNARY(rint)
SIMT_UNARY(round) SIMT_UNARY(sin) SIMT_UNARY(sinh) SIMT_UNARY(sqrt) SIMT_UNARY(tan)
SIMT_UNARY(tanh) SIMT_UNARY(tgamma) SIMT_UNARY(trunc)

SIMT_BINARY(atan2) SIMT_BINARY(copysign) SIMT_BINARY(fdim) SIMT_BINARY(fmax) SIMT_BINARY(fmin)
SIMT_BINARY(fmod) SIMT_BINARY(hypot) SIMT_BINARY(nextafter) SIMT_BINARY(pow) SIMT_BINARY(remainder)

SIMT_PREDICATE(isfinite) SIMT_PREDICATE(isinf) SIMT_PREDICATE(isnan) SIMT_PREDICATE(signbit)

#undef SIMT_UNARY
#undef SIMT_BINARY
#undef SIMT_PREDICATE

inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
inline float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline double pow(double x, int y) { return __builtin_pow(x, double(y)); }
inline float pow(float x, int y) { return __builtin_powf(x, float(y)); }
inline double ldexp(double x, int exponent) { return __builtin_ldexp(x, exponent); }
inline float ldexp(float x, int exponent) { return __builtin_ldexpf(x, exponent); }
inline float ldexpf(float x, int exponent) { return __builtin_ldexpf(x, exponent); }
inline double rsqrt(double x) { return 1. / __builtin_sqrt(x); }
inline float rsqrt(float x) { return 1.f / __builtin_sqrtf(x); }
inline float rsqrtf(float x) { return rsqrt(x); }
inline long long llrint(double x) { return __builtin_llrint(x); }
inline long long llrint(float x) { return __builtin_llrintf(x); }

inline int abs(int x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline double abs(double x) { return __builtin_fabs(x); }
inline float abs(float x) { return __builtin_fabsf(x); }

// min and max of two types a and b, as the type `result` that CUDA converts both to.
#define SIMT_MIN_MAX(a, b, result)                                                         \
    inline result min(a x, b y) { return result(x) < result(y) ? result(x) : result(y); }  \
    inline result max(a x, b y) { return result(x) > result(y) ? result(x) : result(y); }

using simt_ulonglong = unsigned long long;
using simt_longlong = long long;
SIMT_MIN_MAX(int, int, int)
SIMT_MIN_MAX(unsigned, unsigned, unsigned)
SIMT_MIN_MAX(int, unsigned, unsigned)
SIMT_MIN_MAX(unsigned, int, unsigned)
SIMT_MIN_MAX(simt_longlong, simt_longlong, simt_longlong)
SIMT_MIN_MAX(simt_ulonglong, simt_ulonglong, simt_ulonglong)
SIMT_MIN_MAX(simt_longlong, simt_ulonglong, simt_ulonglong)
SIMT_MIN_MAX(simt_ulonglong, simt_longlong, simt_ulonglong)
#undef SIMT_MIN_MAX

inline float min(float x, float y) { return __builtin_fminf(x, y); }
inline float max(float x, float y) { return __builtin_fmaxf(x, y); }
inline double min(double x, double y) { return __builtin_fmin(x, y); }
inline double max(double x, double y) { return __builtin_fmax(x, y); }

// The fast and the explicitly rounded forms; here with the processor's own accuracy.
inline float __expf(float x) { return __builtin_expf(x); }
inline float __logf(float x) { return __builtin_logf(x); }
inline float __log2f(float x) { return __builtin_log2f(x); }
inline float __powf(float x, float y) { return __builtin_powf(x, y); }
inline float __sinf(float x) { return __builtin_sinf(x); }
inline float __cosf(float x) { return __builtin_cosf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return __builtin_fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline float __saturatef(float x) { return __builtin_fminf(__builtin_fmaxf(x, 0.f), 1.f); }
