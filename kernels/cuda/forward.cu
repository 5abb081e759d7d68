// Equations (1)-(9), after the GEMM: n = f(z + b), the bias and f in one pass, with dropout.
//
// Bytes per element: reads z; writes n, and z + b where f' needs it: 2 or 3 Stored, of 4 bytes in
// float32 and 2 in bfloat16.
//
// `Activation`, KEEPS_Z, LEARNED, RANDOM and Stored, the type of z and n, are defined before this
// text.

constexpr int STORED_VEC = 16 / sizeof(Stored);         // elements of z or n in 128 bits

// Random numbers of one layer in training; seeds is 0 at inference.
struct Noise {
    const unsigned long long* seeds;    // (M), the key
    const long long* step;              // (M), updates made so far
    const unsigned* dropout;            // (M): an element is dropped if its bits are below; or 0
    unsigned layer;
};

// The same bits forward and backward.  The seed is read anew for each row: the keys of all rounds,
// which Philox makes of it, would otherwise occupy registers throughout, even without noise.
template<int V> struct NoiseBits { Bits<V> slope, dropout; };

template<int V>
__device__ __forceinline__ NoiseBits<V> noise_bits(const Noise& noise, long long network, long long element)
{
    NoiseBits<V> bits = {};
    if (!noise.seeds) return bits;
    const unsigned long long seed = noise.seeds[network];
    const unsigned step = unsigned(noise.step[network]);
    if (RANDOM) bits.slope = random_bits<V>(seed, element, noise.layer, step, SLOPE);
    if (noise.dropout) bits.dropout = random_bits<V>(seed, element, noise.layer, step, DROPOUT);
    return bits;
}

template<int V>
__device__ __forceinline__ void activate_tile(Stored* z, const Real* b, long long b_stride, Stored* n,
    const Real* p, long long p_stride, Noise noise, long long rows, int columns, int tiles, int chunks)
{
    const Place at = place<V>(tiles, chunks);
    if (at.column >= columns) return;
    const Pack<V> bias = load<V>(b + at.network * b_stride + at.column);
    const Parameters layer = parameters(p + at.network * p_stride);
    const unsigned threshold = noise.dropout ? noise.dropout[at.network] : 0;
    const Real scale = keep_scale(threshold);
    const long long base = at.network * rows * columns;

    Neighbours<Stored, V> next = {};                    // the next row's, under way during this one's
    if (at.row < rows) next = fetch<V>(z + base + at.row * columns + at.column);
    for (long long row = at.row; row < rows; row += at.step) {
        const long long element = row * columns + at.column;
        Pack<V> value = to_real(next), result;
        if (row + at.step < rows) next = fetch<V>(z + base + element + at.step * columns);
        const NoiseBits<V> bits = noise_bits<V>(noise, at.network, element);
        #pragma unroll
        for (int v = 0; v < V; ++v) {
            Parameters own = layer;
            if (RANDOM && noise.seeds)
                own = drawn(layer, bits.slope.v[v]);
            value.v[v] += bias.v[v];
            result.v[v] = Activation::f(value.v[v], own.p);                     // (2)(4)(6)(9)
            if (noise.dropout)
                result.v[v] = bits.dropout.v[v] >= threshold ? result.v[v] * scale : Real(0);
        }
        if (KEEPS_Z && z != n) store<V>(z + base + element, value);
        store<V>(n + base + element, result);
    }
}

// z (M, B, N) in: W n; out: z + b, if f' needs it and n is another array.  n (M, B, N) out.
// b: (N) every b_stride; p: two Reals every p_stride.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) activate(
    Stored* z, const Real* b, long long b_stride, Stored* n, const Real* p, long long p_stride,
    const unsigned long long* seeds, const long long* step, const unsigned* dropout, unsigned layer,
    long long rows, int columns, int tiles, int chunks)
{
    const Noise noise{seeds, step, dropout, layer};
    if (columns % STORED_VEC == 0)
        activate_tile<STORED_VEC>(z, b, b_stride, n, p, p_stride, noise, rows, columns, tiles, chunks);
    else
        activate_tile<1>(z, b, b_stride, n, p, p_stride, noise, rows, columns, tiles, chunks);
}
