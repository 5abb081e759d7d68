// Softmax and log_softmax at the output, for predictions: n = softmax(z + b) along the row.
//
// Bytes per element: reads z (twice more from the cache); writes n: 2 Reals.

// blockDim.x lanes (a power of two up to 32) share a row; every lane takes part in each shuffle.
// z (M, B, N), b (N) every b_stride, n (M, B, N) out; may be z.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) activate_rows(
    const Real* z, const Real* b, long long b_stride, Real* n, int logarithm,
    long long rows, int columns, int chunks)
{
    const Place at = place<1>(1, chunks);
    const Real* bias = b + at.network * b_stride;
    for (long long first = at.row - threadIdx.y; first < rows; first += at.step) {
        const long long row = first + threadIdx.y;      // rows beyond the last take part in shuffles
        const int size = row < rows ? columns : 0;
        const long long offset = (at.network * rows + row) * columns;

        Real top = Lowest<Real>::value;
        for (int j = int(threadIdx.x); j < size; j += blockDim.x) top = fmax(top, z[offset + j] + bias[j]);
        top = row_max(top);
        Real total = Real(0);
        for (int j = int(threadIdx.x); j < size; j += blockDim.x) total += exp(z[offset + j] + bias[j] - top);
        total = row_sum(total);

        const Real log_total = log(total), inverse = Real(1) / total;
        for (int j = int(threadIdx.x); j < size; j += blockDim.x) {
            const Real shifted = z[offset + j] + bias[j] - top;
            n[offset + j] = logarithm ? shifted - log_total : exp(shifted) * inverse;
        }
    }
}
