// Softmax and log_softmax at the output, for predictions: n = softmax(z + b) along the row.
//
// Bytes per element: reads z (twice more from the cache); writes n: 2 Reals.

// blockDim.x lanes (a power of two up to 32) share a row, V columns at a time; every lane takes part in
// each shuffle.
template<int V>
__device__ __forceinline__ void activate_rows_by(const Real* z, const Real* b, long long b_stride, Real* n,
    int logarithm, long long rows, int columns, int chunks)
{
    const Place at = place<1>(1, chunks);
    const Real* bias = b + at.network * b_stride;
    const int first_column = int(threadIdx.x) * V, step = int(blockDim.x) * V;
    for (long long first = at.row - threadIdx.y; first < rows; first += at.step) {
        const long long row = first + threadIdx.y;      // rows beyond the last take part in shuffles
        const int size = row < rows ? columns : 0;
        const long long offset = (at.network * rows + row) * columns;

        Real top = Lowest<Real>::value;
        for (int j = first_column; j < size; j += step) {
            const Pack<V> sum = sum_at<V>(z + offset + j, bias + j);
            #pragma unroll
            for (int v = 0; v < V; ++v) top = fmax(top, sum.v[v]);
        }
        top = row_max(top);
        Real total = Real(0);
        for (int j = first_column; j < size; j += step) {
            const Pack<V> sum = sum_at<V>(z + offset + j, bias + j);
            #pragma unroll
            for (int v = 0; v < V; ++v) total += exp(sum.v[v] - top);
        }
        total = row_sum(total);

        Real* out = n + offset;
        const Real log_total = log(total), inverse = Real(1) / total;
        for (int j = first_column; j < size; j += step) {
            const Pack<V> sum = sum_at<V>(z + offset + j, bias + j);
            Pack<V> result;
            #pragma unroll
            for (int v = 0; v < V; ++v) {
                const Real shifted = sum.v[v] - top, share = exp(shifted) * inverse;
                result.v[v] = logarithm ? shifted - log_total : share;
            }
            store<V>(out + j, result);
        }
    }
}

// z (M, B, N), b (N) every b_stride, n (M, B, N) out; may be z.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) activate_rows(
    const Real* z, const Real* b, long long b_stride, Real* n, int logarithm,
    long long rows, int columns, int chunks)
{
    if (in_packs(columns, z, b, n)) activate_rows_by<VEC>(z, b, b_stride, n, logarithm, rows, columns, chunks);
    else activate_rows_by<1>(z, b, b_stride, n, logarithm, rows, columns, chunks);
}
