// Equations (11) and (13), after the GEMM: delta = f'(z) * (W^T delta), and the bias gradient, the
// sum of delta over the batch, in the same pass; for PReLU also the gradient of the slope.
//
// Bytes per element: reads delta and n (or z); writes delta: 2 Delta and 1 Stored, 12 bytes in
// float32 and 6 in bfloat16.  With Identity it is the sum alone: 1 Delta.
//
// `Activation`, KEEPS_Z, LEARNED, RANDOM, IDENTITY, Stored and Delta, the type of delta, are defined
// before this text, columns.cuh and forward.cu too.

constexpr int DELTA_VEC = 16 / sizeof(Delta);           // elements of delta in 128 bits

// Sums that cross blocks: one partial row for each chunk of rows, and a count of finished blocks.
struct Partial {
    Real* columns;              // (M, chunks, N)
    Real* slope;                // (M, chunks, tiles)
    unsigned* column_blocks;    // (M, tiles), all 0
    unsigned* blocks;           // (M), all 0
};

// df/dp[0] of a learned slope; other activations have none.
template<class A> __device__ __forceinline__ Real d_slope(Real z)
{
    if constexpr (LEARNED) return A::dp(z);
    else return Real(0);
}

template<int V>
__device__ __forceinline__ void backprop_tile(const Stored* z, const Stored* n, Delta* delta,
    Real* db, long long db_stride, const Real* p, long long p_stride, Real* dp, long long dp_stride,
    Noise noise, Partial partial, long long rows, int columns, int tiles, int chunks)
{
    const Place at = place<V>(tiles, chunks);
    const long long base = at.network * rows * columns;
    Pack<V> sum = {};
    Real slope = Real(0);

    if (at.column < columns) {
        const Parameters layer = parameters(p + at.network * p_stride);
        const unsigned threshold = noise.dropout ? noise.dropout[at.network] : 0;
        const Real scale = keep_scale(threshold);

        const bool has_factor = !IDENTITY || noise.dropout;
        const Stored* kept = KEEPS_Z ? z : n;

        Neighbours<Delta, V> next_d = {};               // the next row's, under way during this one's
        Neighbours<Stored, V> next_kept = {};
        if (at.row < rows) {
            const long long first = base + at.row * columns + at.column;
            next_d = fetch<V>(delta + first);
            if (has_factor) next_kept = fetch<V>(kept + first);
        }
        for (long long row = at.row; row < rows; row += at.step) {
            const long long element = row * columns + at.column;
            Pack<V> d = to_real(next_d), kept_z = {}, value = {};
            (KEEPS_Z ? kept_z : value) = to_real(next_kept);
            if (row + at.step < rows) {
                const long long next = base + element + at.step * columns;
                next_d = fetch<V>(delta + next);
                if (has_factor) next_kept = fetch<V>(kept + next);
            }
            if (has_factor) {
                const NoiseBits<V> bits = noise_bits<V>(noise, at.network, element);
                #pragma unroll
                for (int v = 0; v < V; ++v) {
                    Parameters own = layer;
                    if (RANDOM && noise.seeds)
                        own = drawn(layer, bits.slope.v[v]);
                    if (noise.dropout) {
                        d.v[v] = bits.dropout.v[v] >= threshold ? d.v[v] * scale : Real(0);
                        value.v[v] /= scale;                    // n before dropout, where it was kept
                    }
                    slope += d.v[v] * d_slope<Activation>(kept_z.v[v]);
                    d.v[v] *= Activation::df(kept_z.v[v], value.v[v], own.p);   // (11)
                }
                store<V>(delta + base + element, d);
            }
            for (int v = 0; v < V; ++v) sum.v[v] += d.v[v];                     // (13)
        }
    }

    sum_columns<V>(sum, db + at.network * db_stride, partial.columns + at.network * chunks * columns,
                   partial.column_blocks + at.network * tiles, at, columns, chunks);
    if constexpr (LEARNED) {
        slope = block_sum(slope);
        const int blocks = chunks * tiles;
        Real* parts = partial.slope + at.network * blocks;
        if (thread_in_block() == 0) parts[at.chunk * tiles + at.tile] = slope;
        if (last_block(partial.blocks + at.network, blocks)) {
            const Real total = ordered_sum(parts, blocks);
            if (thread_in_block() == 0) dp[at.network * dp_stride] = total;
        }
    }
}

// delta (M, B, N) in: dL/dn^(k); out: delta^(k).  z, n (M, B, N); the one that f' ignores is not read.
// db: (N) every db_stride, out.  dp: one Real every dp_stride, out, for a learned slope.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) backprop(
    const Stored* z, const Stored* n, Delta* delta, Real* db, long long db_stride,
    const Real* p, long long p_stride, Real* dp, long long dp_stride,
    const unsigned long long* seeds, const long long* step, const unsigned* dropout, unsigned layer,
    Real* partial_columns, Real* partial_slope, unsigned* column_blocks, unsigned* blocks,
    long long rows, int columns, int tiles, int chunks)
{
    const Noise noise{seeds, step, dropout, layer};
    const Partial partial{partial_columns, partial_slope, column_blocks, blocks};
    if (columns % DELTA_VEC == 0)
        backprop_tile<DELTA_VEC>(z, n, delta, db, db_stride, p, p_stride, dp, dp_stride, noise, partial,
                           rows, columns, tiles, chunks);
    else
        backprop_tile<1>(z, n, delta, db, db_stride, p, p_stride, dp, dp_stride, noise, partial,
                         rows, columns, tiles, chunks);
}
