// W = V diag(s) of a layer whose inputs have a learned scale, z = V (s * n) + b = W n + b; and the
// gradients by V and s of G = dL/dW.
//
// Bytes per element: scale reads V and writes W: 1 Real and 1 Stored, 8 bytes in float32 and 6 where
// W is in bfloat16; scale_gradient reads G and V and writes G: 3 Reals.
//
// Stored, the type of W, is defined before this text, columns.cuh too.  A row has the J numbers that
// belong to one output.

constexpr int STORED_VEC = 16 / sizeof(Stored);         // elements of W in 128 bits

template<int PACK>
__device__ __forceinline__ void scale_tile(
    const Real* V, const Real* s, Stored* W, long long rows, int columns, const Place& at)
{
    if (at.column >= columns) return;
    const Pack<PACK> factor = load<PACK>(s + at.column);
    Pack<PACK> next = {};                               // the next row's, under way during this one's
    if (at.row < rows) next = load<PACK>(V + at.row * columns + at.column);
    for (long long row = at.row; row < rows; row += at.step) {
        const long long element = row * columns + at.column;
        Pack<PACK> value = next;
        if (row + at.step < rows) next = load<PACK>(V + element + at.step * columns);
        #pragma unroll
        for (int v = 0; v < PACK; ++v) value.v[v] *= factor.v[v];
        store<PACK>(W + element, value);
    }
}

// V (M, I, J) every V_stride, s (M, J) every s_stride; W (M, I, J) every W_stride, out.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scale(
    const Real* V, long long V_stride, const Real* s, long long s_stride, Stored* W, long long W_stride,
    long long rows, int columns, int tiles, int chunks)
{
    if (columns % STORED_VEC == 0) {
        const Place at = place<STORED_VEC>(tiles, chunks);
        const long long m = at.network;
        scale_tile<STORED_VEC>(V + m * V_stride, s + m * s_stride, W + m * W_stride, rows, columns, at);
    } else {
        const Place at = place<1>(tiles, chunks);
        const long long m = at.network;
        scale_tile<1>(V + m * V_stride, s + m * s_stride, W + m * W_stride, rows, columns, at);
    }
}

template<int PACK>
__device__ __forceinline__ void scale_gradient_tile(Real* G, long long G_stride, const Real* V, long long V_stride,
    const Real* s, long long s_stride, Real* ds, long long ds_stride, Real* parts, unsigned* arrived,
    long long rows, int columns, int tiles, int chunks)
{
    const Place at = place<PACK>(tiles, chunks);
    G += at.network * G_stride;
    V += at.network * V_stride;
    Pack<PACK> sum = {};
    if (at.column < columns) {
        const Pack<PACK> factor = load<PACK>(s + at.network * s_stride + at.column);
        Pack<PACK> next_g = {}, next_v = {};            // the next row's, under way during this one's
        if (at.row < rows) {
            next_g = load<PACK>(G + at.row * columns + at.column);
            next_v = load<PACK>(V + at.row * columns + at.column);
        }
        for (long long row = at.row; row < rows; row += at.step) {
            const long long element = row * columns + at.column;
            Pack<PACK> g = next_g;
            const Pack<PACK> weight = next_v;
            if (row + at.step < rows) {
                next_g = load<PACK>(G + element + at.step * columns);
                next_v = load<PACK>(V + element + at.step * columns);
            }
            #pragma unroll
            for (int v = 0; v < PACK; ++v) {
                sum.v[v] += g.v[v] * weight.v[v];       // dL/ds_j
                g.v[v] *= factor.v[v];                  // dL/dV_ij
            }
            store<PACK>(G + element, g);
        }
    }
    sum_columns<PACK>(sum, ds + at.network * ds_stride, parts + at.network * chunks * columns,
                      arrived + at.network * tiles, at, columns, chunks);
}

// G (M, I, J) every G_stride in: dL/dW; out: dL/dV.  V, s as above; ds (M, J) every ds_stride, out.
// parts (M, chunks, J); arrived (M, tiles), all 0.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scale_gradient(
    Real* G, long long G_stride, const Real* V, long long V_stride, const Real* s, long long s_stride,
    Real* ds, long long ds_stride, Real* parts, unsigned* arrived,
    long long rows, int columns, int tiles, int chunks)
{
    if (columns % VEC == 0)
        scale_gradient_tile<VEC>(G, G_stride, V, V_stride, s, s_stride, ds, ds_stride, parts, arrived,
                                 rows, columns, tiles, chunks);
    else
        scale_gradient_tile<1>(G, G_stride, V, V_stride, s, s_stride, ds, ds_stride, parts, arrived,
                               rows, columns, tiles, chunks);
}
