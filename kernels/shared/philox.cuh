// Philox4x32-10 (Salmon et al. 2011), counter-based random numbers.  gpumlp/backend/reference/philox.py is the
// same function: both give the same bits.  The key is the network's own 64-bit seed.

enum Purpose { DROPOUT = 0, SLOPE = 1, SHUFFLE = 2 };

struct Philox { unsigned v[4]; };

__device__ __forceinline__ Philox philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3,
                                         unsigned long long seed)
{
    unsigned k0 = unsigned(seed), k1 = unsigned(seed >> 32);
    #pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return Philox{{c0, c1, c2, c3}};
}

// The 32 bits of each of V neighbouring elements of one network's layer, the first a multiple of V:
// counter (element / 4, layer, step, purpose).
template<int V> struct Bits { unsigned v[V]; };

template<int V>
__device__ __forceinline__ Bits<V> random_bits(unsigned long long seed, long long element,
                                               unsigned layer, unsigned step, unsigned purpose)
{
    const Philox four = philox(unsigned(element >> 2), layer, step, purpose, seed);
    const unsigned lane = unsigned(element) & 3u;
    Bits<V> bits;
    if constexpr (V == 8) {
        const Philox next = philox(unsigned(element >> 2) + 1, layer, step, purpose, seed);
        for (int v = 0; v < 4; ++v) bits.v[v] = four.v[v], bits.v[v + 4] = next.v[v];
    } else if constexpr (V == 4)                                  // a register array has no run-time index
        for (int v = 0; v < 4; ++v) bits.v[v] = four.v[v];
    else if constexpr (V == 2)
        for (int v = 0; v < 2; ++v) bits.v[v] = lane ? four.v[v + 2] : four.v[v];
    else
        bits.v[0] = lane == 0 ? four.v[0] : lane == 1 ? four.v[1] : lane == 2 ? four.v[2] : four.v[3];
    return bits;
}

// uint32 -> [0, 1), exactly representable: the upper 24 bits.
__device__ __forceinline__ Real uniform(unsigned bits)
{
    return Real(bits >> 8) * Real(5.9604644775390625e-8);  // 2^-24
}
