// The built-in types of CUDA C++ that kernels use.
#pragma once

struct uint3 { unsigned x, y, z; };
struct int3 { int x, y, z; };
struct float3 { float x, y, z; };

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Vectors, with the alignment that the GPU's wide loads need, and their make_ functions.
#define SIMT_VECTOR_2(type, name, alignment)          \
    struct alignas(alignment) name { type x, y; };    \
    inline name make_##name(type x, type y) { return {x, y}; }
#define SIMT_VECTOR_4(type, name, alignment)             \
    struct alignas(alignment) name { type x, y, z, w; }; \
    inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

SIMT_VECTOR_2(int, int2, 8)
SIMT_VECTOR_2(unsigned, uint2, 8)
SIMT_VECTOR_2(float, float2, 8)
SIMT_VECTOR_2(double, double2, 16)
SIMT_VECTOR_2(long long, longlong2, 16)
SIMT_VECTOR_2(unsigned long long, ulonglong2, 16)
SIMT_VECTOR_4(unsigned char, uchar4, 4)
SIMT_VECTOR_4(int, int4, 16)
SIMT_VECTOR_4(unsigned, uint4, 16)
SIMT_VECTOR_4(float, float4, 16)

#undef SIMT_VECTOR_2
#undef SIMT_VECTOR_4
