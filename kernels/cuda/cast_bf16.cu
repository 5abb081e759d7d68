// bfloat16 copies of what is kept in float32: the parameters before each forward pass.
//
// Bytes per element: reads one Real, writes one Bf16: 6.

constexpr int BF16_VEC = 16 / sizeof(Bf16);             // elements of the copy in 128 bits

// a (M, size) every a_stride; out (M, size) every out_stride: bits, rounded to the nearest even.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) cast_bf16(
    const Real* a, long long a_stride, Bf16* out, long long out_stride, long long size, int chunks)
{
    const Place at = place<1>(1, chunks);
    const long long first = item(at), step = at.step * THREADS;
    a += at.network * a_stride;
    out += at.network * out_stride;
    const unsigned long long from = reinterpret_cast<unsigned long long>(a);
    const unsigned long long to = reinterpret_cast<unsigned long long>(out);
    // Elements that go by 128 bits: where both addresses are such a pack's, all but a tail.
    const long long packed = from % 32 == 0 && to % 16 == 0 ? size / BF16_VEC * BF16_VEC : 0;
    copy<BF16_VEC>(a, out, first, step, packed / BF16_VEC);
    copy<1>(a + packed, out + packed, first, step, size - packed);
}
