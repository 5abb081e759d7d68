// bfloat16 copies of what is kept in float32: the parameters before each forward pass.
//
// Bytes per element: reads one Real, writes one Bf16: 6.

constexpr int BF16_VEC = 16 / sizeof(Bf16);             // elements of the copy in 128 bits
constexpr int UNDER_WAY = 4;                            // loads of a thread before its first store

template<int V>
__device__ __forceinline__ void narrow_packs(const Real* a, Bf16* out, long long first, long long step,
                                             long long packs)
{
    long long i = first;
    for (; i + (UNDER_WAY - 1) * step < packs; i += UNDER_WAY * step) {
        Pack<V> taken[UNDER_WAY];
        #pragma unroll
        for (int k = 0; k < UNDER_WAY; ++k) taken[k] = load<V>(a + (i + k * step) * V);
        #pragma unroll
        for (int k = 0; k < UNDER_WAY; ++k) store<V>(out + (i + k * step) * V, taken[k]);
    }
    for (; i < packs; i += step) store<V>(out + i * V, load<V>(a + i * V));
}

// a (M, size) every a_stride; out (M, size) every out_stride: bits, rounded to the nearest even.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) narrow(
    const Real* a, long long a_stride, Bf16* out, long long out_stride, long long size, int chunks)
{
    const Place at = place<1>(1, chunks);
    const long long first = item(at), step = at.step * THREADS;
    a += at.network * a_stride;
    out += at.network * out_stride;
    long long packed = 0;                               // elements that go by 128 bits
    if (a_stride % BF16_VEC == 0 && out_stride % BF16_VEC == 0) {
        packed = size / BF16_VEC * BF16_VEC;
        narrow_packs<BF16_VEC>(a, out, first, step, size / BF16_VEC);
    }
    narrow_packs<1>(a + packed, out + packed, first, step, size - packed);
}
