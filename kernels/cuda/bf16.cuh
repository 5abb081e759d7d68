// bfloat16, the upper half of a float, for arrays that only GEMMs and these kernels read: they are
// stored in it, converted in registers, and calculated with as Real.

struct Bf16 {
    unsigned short bits;

    Bf16() = default;

    // To the nearest, of two equally near to the even one; beyond the largest, infinity.  A NaN
    // becomes the one that the GPU's own conversion gives.
    __device__ __forceinline__ explicit Bf16(float x)
    {
        const unsigned u = __float_as_uint(x);
        bits = (unsigned short)(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
    }

    __device__ __forceinline__ explicit operator float() const
    {
        return __uint_as_float(unsigned(bits) << 16);
    }
};

// Two neighbours in memory, the first in the lower half.
__device__ __forceinline__ unsigned bf16_pair(float first, float second)
{
    return unsigned(Bf16(second).bits) << 16 | Bf16(first).bits;
}
