// What one batch adds to an evaluation: for each network the loss as a sum over samples, the weight of
// the samples, and the weight of those whose class is right.
//
// Bytes per element: reads n, and y unless the targets are labels: 1 or 2 Reals.

// The column of a row's largest value, the first of equals; the same in every lane of the row,
// which take V columns at a time.
template<int V>
__device__ __forceinline__ int row_argmax(const Real* row, int columns)
{
    Real top = Lowest<Real>::value;
    int best = columns;
    for (int j = int(threadIdx.x) * V; j < columns; j += blockDim.x * V) {
        const Pack<V> a = load<V>(row + j);
        #pragma unroll
        for (int v = 0; v < V; ++v)
            if (best == columns || a.v[v] > top) {
                top = a.v[v];
                best = j + v;
            }
    }
    for (int o = blockDim.x / 2; o; o >>= 1) {
        const Real other = __shfl_xor_sync(0xffffffffu, top, o);
        const int column = __shfl_xor_sync(0xffffffffu, best, o);
        if (column < columns && (best == columns || other > top || (other == top && column < best))) {
            top = other;
            best = column;
        }
    }
    return best;
}

// A class is right if its output is the largest (compete), or all are on their side of the threshold.
template<int V>
__device__ __forceinline__ bool row_is_right(const Real* n, int label, const Real* y, int columns,
                                             int compete, Real threshold)
{
    if (compete || !y) {
        const int target = y ? row_argmax<V>(y, columns) : label;
        return row_argmax<V>(n, columns) == target;
    }
    Real wrong = Real(0);
    for (int j = int(threadIdx.x) * V; j < columns; j += blockDim.x * V) {
        const Pack<V> given = load<V>(n + j), wanted = load<V>(y + j);
        #pragma unroll
        for (int v = 0; v < V; ++v) wrong += Real((given.v[v] > threshold) != (wanted.v[v] > Real(0.5)));
    }
    return row_sum(wrong) == Real(0);
}

// The thread's part of the weight of the rows that are right.
template<int V>
__device__ __forceinline__ Real weight_of_right(const Place& at, const Real* n, const int* labels,
    const Real* dense, const Real* w, int compete, Real threshold, long long rows, int columns)
{
    Real right = Real(0);
    for (long long first = at.row - threadIdx.y; n && first < rows; first += at.step) {
        const long long row = first + threadIdx.y;      // rows beyond the last take part in shuffles
        const int size = row < rows ? columns : 0;
        const long long sample = at.network * rows + (size ? row : 0);
        const bool is_right = row_is_right<V>(n + sample * columns, labels ? labels[sample] : 0,
                                              dense ? dense + sample * columns : 0, size, compete, threshold);
        if (size && is_right && threadIdx.x == 0) right += w[sample];
    }
    return right;
}

// n (M, B, N): ŷ, or 0 where there are no classes; labels (M, B) or dense (M, B, N); w (M, B).
// value, w_sum (M): of `loss`; cursor (M): batches done, the row of sums (steps, M, 3) to write.
// blockDim.x lanes (a power of two up to 32) share a row; every lane takes part in each shuffle.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) accumulate_metrics(
    const Real* n, const int* labels, const Real* dense, const Real* w, int compete, Real threshold,
    const Real* value, const Real* w_sum, int mean, long long* cursor, Real* sums,
    Real* partial, unsigned* arrived, long long networks, long long rows, int columns, int chunks)
{
    const Place at = place<1>(1, chunks);
    const long long m = at.network;
    Real right = in_packs(columns, n, dense)
               ? weight_of_right<VEC>(at, n, labels, dense, w, compete, threshold, rows, columns)
               : weight_of_right<1>(at, n, labels, dense, w, compete, threshold, rows, columns);
    right = block_sum(right);
    Real* parts = partial + m * chunks;
    if (thread_in_block() == 0) parts[at.chunk] = right;
    if (!last_block(arrived + m, chunks)) return;
    right = ordered_sum(parts, chunks);
    if (thread_in_block() != 0) return;
    Real* out = sums + (cursor[m] * networks + m) * 3;
    out[0] = value[m] * (mean ? w_sum[m] : Real(1));
    out[1] = w_sum[m];
    out[2] = right;
    cursor[m] += 1;
}
