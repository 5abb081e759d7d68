// The sum of each column over all rows, which blocks share by chunks: the gradients of b and of s.

// The sum of a block's columns over threadIdx.y, for V columns of each thread, in a fixed order;
// valid where threadIdx.y is 0.
template<int V>
__device__ __forceinline__ Pack<V> column_sum(Pack<V> sum)
{
    __shared__ Real sums[V][THREADS];
    const int t = thread_in_block();
    for (int v = 0; v < V; ++v) sums[v][t] = sum.v[v];
    __syncthreads();
    for (int half = blockDim.y / 2; half; half >>= 1) {
        if (int(threadIdx.y) < half)
            for (int v = 0; v < V; ++v) sums[v][t] += sums[v][t + half * blockDim.x];
        __syncthreads();
    }
    for (int v = 0; v < V; ++v) sum.v[v] = sums[v][t];
    return sum;
}

// out (N) <- the sums, of which each thread has those of its own rows; every thread takes part.
// parts (chunks, N): a partial row for each chunk; arrived (tiles): blocks that have ended, all 0.
template<int V>
__device__ __forceinline__ void sum_columns(Pack<V> sum, Real* out, Real* parts, unsigned* arrived,
    const Place& at, int columns, int chunks)
{
    sum = column_sum<V>(sum);
    const bool owner = threadIdx.y == 0 && at.column < columns;
    if (chunks == 1) {
        if (owner) for (int v = 0; v < V; ++v) out[at.column + v] = sum.v[v];
    } else {
        Real* mine = parts + at.column;
        if (owner) store<V>(mine + (long long)at.chunk * columns, sum);
        if (last_block(arrived + at.tile, chunks)) {
            Pack<V> total = {};
            if (at.column < columns)
                #pragma unroll 1                                // rare and short: keep the code small
                for (int c = int(threadIdx.y); c < chunks; c += blockDim.y) {
                    const Pack<V> part = load<V>(mine + (long long)c * columns);
                    for (int v = 0; v < V; ++v) total.v[v] += part.v[v];
                }
            total = column_sum<V>(total);
            if (owner) for (int v = 0; v < V; ++v) out[at.column + v] = total.v[v];
        }
    }
}
